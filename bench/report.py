"""Render results as Markdown: the generated tables of docs/explanation/performance.md, between two comments."""

from pathlib import Path

from bench.figures import STREAM, Load, Paced, Result
from bench.targets import PEERS, Peers, Verdict, verdicts

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"
BEGIN = "<!-- figures: written by `python -m bench --write-docs`, never by hand -->"
END = "<!-- end of the figures -->"


def number(value: float) -> str:
    """Format with three or four significant digits and thousands separators."""
    if value == 0:
        return "0"
    if value >= 10_000:
        value = float(f"{value:.3g}")
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" if value >= 100 else f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number(value)} {unit}".strip()


def table(header: str, rows: list[list[str]]) -> str:
    """A markdown table; ``header`` names the columns, parted by bars."""
    columns = header.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(result: Result) -> str:
    """Render all tables of a run."""
    parts = [
        about(result),
        "### Targets",
        judged(verdicts(result)),
        f"{sum(one.met for one in verdicts(result))} of {len(verdicts(result))} targets are met.",
        "### Against peers",
        compared(verdicts(result)),
        "### As fast as the clients ask",
        loads(result.loads),
        "### At a fixed rate",
        paced(result.paced),
        "### One thread, start and memory",
        table("what|figure", single_figures(result)),
    ]
    return "\n\n".join(parts)


def about(result: Result) -> str:
    """Describe the machine and the time."""
    machine = result.machine
    revision = f", revision {machine.revision}" if machine.revision else ""
    kind = "A quick run" if result.quick else "A full run"
    return (
        f"{kind} of {result.at}{revision}: {machine.cores} cores ({machine.cpu}), {machine.memory_gb:.0f} GiB, "
        f"{machine.system}, Python {machine.python}, PostgreSQL {machine.postgres} with {machine.fsync}. "
        f"Load before it {machine.load_before:.2f}; {machine.stolen:.1%} of the CPU time went to other machines. "
        f"It took {result.took_s:.0f} s."
    )


def judged(found: list[Verdict]) -> str:
    """Render the targets with figures and floors."""
    rows = []
    for one in found:
        target = one.target
        sign = "≤" if target.is_maximum else "≥"
        floor = "" if one.floor is None else f"{amount(one.floor, target.unit)} ({target.floor_is})"
        ratio = "" if one.floor_ratio is None else f"{number(one.floor_ratio)} ×"
        bound = f"{sign} {amount(target.bound, target.unit)}"
        rows.append([target.work, bound, f"**{amount(one.value, target.unit)}**", "yes" if one.met else "**no**"])
        rows[-1] += [floor, ratio]
    return table("work|target|measured|met|floor in the same run|measured ÷ floor", rows)


def compared(found: list[Verdict]) -> str:
    """Render the comparison with the peers."""
    rows = []
    for one in found:
        if isinstance(one.target.peers, Peers) and one.peers_ratio is not None:
            unit = one.target.unit
            peers = ["" if value is None else amount(value, unit) for value in one.target.peers.values]
            rows.append([one.target.work, f"**{amount(one.value, unit)}**", *peers, f"{number(one.peers_ratio)} ×"])
    return table("|".join(["work", "this server", *PEERS, "better than the best"]), rows)


def loads(every: list[Load]) -> str:
    """Render the closed loops."""
    rows = []
    for one in every:
        events = number(one.events_per_second) if one.events_per_second > one.per_second else ""
        rate = number(one.per_second)
        if len(one.rates) > 1:
            rate += f" ({number(min(one.rates))}–{number(max(one.rates))})"
        latencies = [number(value) for value in (one.p50_ms, one.p95_ms, one.p99_ms)]
        first = number(one.first_p50_ms) if one.scenario == STREAM else ""
        used = [number(one.server_us), number(one.postgres_us) if one.postgres_us >= 1 else "", number(one.client_us)]
        rows.append([one.scenario, str(one.clients), rate, events, *latencies, first, *used, str(len(one.errors))])
    return table(
        "scenario|clients|operations/s (rounds)|events/s|p50 ms|p95 ms|p99 ms|first event p50 ms"
        "|server CPU µs|PostgreSQL CPU µs|client CPU µs|errors",
        rows,
    )


def paced(every: list[Paced]) -> str:
    """Render latencies below saturation."""
    rows = []
    for one in every:
        figures = [
            number(value) for value in (one.rate, one.achieved, one.p50_ms, one.p95_ms, one.p99_ms, one.client_us)
        ]
        rows.append([one.scenario, f"{one.share:.0%}", *figures, str(len(one.errors))])
    return table("scenario|of the greatest rate|asked/s|answered/s|p50 ms|p95 ms|p99 ms|client CPU µs|errors", rows)


def single_figures(result: Result) -> list[list[str]]:
    """Return the rows of single measurements."""
    growth = result.growth
    rows = [
        ["bytes on the wire of a token's event", number(result.token_bytes)],
        [f"stored checkpoints after {growth.turns} turns", f"{growth.stored_bytes:,} bytes"],
        ["the state then, as JSON", f"{growth.state_bytes:,} bytes"],
        [f"turn 10, turn {growth.turns}", f"{number(growth.early_ms)} ms, {number(growth.late_ms)} ms"],
        ["reading that state, p50", f"{number(growth.read_ms)} ms"],
        ["statements of one read", f"{growth.read_statements} for the state, {growth.read_round_trips} in all"],
    ]
    for start in result.starts:
        span = f"{number(start.median)} s"
        if len(start.seconds) > 1:
            span += f" ({number(min(start.seconds))}–{number(max(start.seconds))})"
        rows.append([f"{start.command}: start to ready", span])
        included = ", its PostgreSQL included" if start.command == "dev" else ""
        memory = f"{number(start.rss_mb)} MB resident, {number(start.pss_mb)} MB with shared pages counted once"
        rows.append([f"{start.command}: idle memory{included}", memory])
    return rows


def page(text: str, result: Result) -> str:
    """Insert the tables of ``result`` into ``text``. Raises ``SystemExit`` if its two comments are missing."""
    head, begun, rest = text.partition(BEGIN)
    _, ended, foot = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{PAGE.name} has lost the comments around its figures: {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{tables(result)}\n\n{END}{foot}"
