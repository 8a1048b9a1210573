"""Performance targets, compared with a floor of the same run and with peers."""

import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench.figures import ECHO, FRAMES, GROUP, HELLO, OK, STREAM, Result

PEERS = ("LangGraph dev", "Aegra", "Aegra + Redis")
"""LangGraph's development server 0.16.7 (in memory, not durable); Aegra 0.11 in-process, and with Redis workers."""

Of = Callable[[Result], float]


class Peers(msgspec.Struct, frozen=True):
    """Figures in the order of ``PEERS``, if known; the better end of a range."""

    values: tuple[float | None, float | None, float | None]

    def best(self, *, lowest: bool) -> float:
        """The best of them; ``lowest``: less is better."""
        known = [value for value in self.values if value is not None]
        return min(known) if lowest else max(known)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A target: what is measured, the unit and the bound."""

    work: str
    unit: str
    bound: float
    measured: Of
    is_maximum: bool = True
    """Whether ``bound`` is a maximum; else it is a minimum."""
    floor: Of | None = None
    floor_is: str = ""
    peers: Peers | None = None
    drawn: str = ""
    """Title in the picture; empty: not drawn."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A target compared with a result."""

    target: Target
    value: float
    met: bool
    floor: float | None
    floor_ratio: float | None
    """Measured ÷ floor."""
    peers_ratio: float | None
    """How many times better than the best peer; below 1: worse."""


def echo_floor_us(result: Result) -> float:
    """CPU of the bare parts of an echo: two requests and one commit in a group."""
    return 2 * result.load(HELLO, 64).server_us + result.load(GROUP, 64).server_us


def growth_factor(result: Result) -> float:
    """Return the ratio of turn 200 to turn 10."""
    return result.growth.late_ms / result.growth.early_ms


def bare_request(result: Result) -> float:
    """The rate of ``ok`` in terms of hello's: the middle of the rounds, in each of which the two stand side by side."""
    pairs = zip(result.load(OK, 64).rates, result.load(HELLO, 64).rates, strict=True)
    return statistics.median(ok / hello for ok, hello in pairs)


TARGETS = (
    Target(
        work="echo waited for on a new thread, 1 client: p50",
        unit="ms",
        bound=5,
        measured=lambda r: r.load(ECHO, 1).p50_ms,
        floor=lambda r: r.load(GROUP, 1).p50_ms,
        floor_is="one bare commit",
        peers=Peers((1006, 54, 2031)),
        drawn="Echo on a new thread, 1 client",
    ),
    Target(
        work="the same, 64 clients",
        unit="runs/s",
        bound=500,
        is_maximum=False,
        measured=lambda r: r.load(ECHO, 64).per_second,
        floor=lambda r: r.load(GROUP, 64).per_second,
        floor_is="bare group commit",
        peers=Peers((83, 18, 16)),
        drawn="Echo on a new thread, 64 clients",
    ),
    Target(
        work="the same: CPU of the server a run",
        unit="ms",
        bound=1.2,
        measured=lambda r: r.load(ECHO, 64).server_us / 1000,
        floor=lambda r: echo_floor_us(r) / 1000,
        floor_is="two hellos and a commit in a group",
        peers=Peers((8, 35, 44)),
        drawn="CPU of the server, an echo",
    ),
    Target(
        work="`stream100`, 64 clients",
        unit="events/s",
        bound=20_000,
        is_maximum=False,
        measured=lambda r: r.load(STREAM, 64).events_per_second,
        floor=lambda r: r.load(FRAMES, 64).events_per_second,
        floor_is="ready frames",
        peers=Peers((3000, 1500, 500)),
        drawn="Streams of 100 tokens, 64 clients",
    ),
    Target(
        work="the same: CPU of the server an event",
        unit="µs",
        bound=40,
        measured=lambda r: r.load(STREAM, 64).event_us,
        floor=lambda r: r.load(FRAMES, 64).event_us,
        floor_is="ready frames",
        peers=Peers((320, 660, 1900)),
        drawn="CPU of the server, an event",
    ),
    Target(
        work="the same: first event that is a token, p50",
        unit="ms",
        bound=60,
        measured=lambda r: r.load(STREAM, 64).token_p50_ms,
        floor=lambda r: r.load(FRAMES, 64).token_p50_ms,
        floor_is="ready frames",
        peers=Peers((1200, 1700, 7200)),
        drawn="First token, 64 clients",
    ),
    Target(
        work="thread of 200 short turns: stored checkpoints ÷ state",
        unit="×",
        bound=3,
        measured=lambda r: r.growth.stored_bytes / r.growth.state_bytes,
        floor=lambda _: 1.0,
        floor_is="the state itself",
        peers=Peers((242, None, None)),
    ),
    Target(
        work="the same: turn 200 ÷ turn 10",
        unit="×",
        bound=1.5,
        measured=growth_factor,
        floor=lambda _: 1.0,
        floor_is="no growth",
        peers=Peers((13.6 / 4.5, 98 / 63, 149 / 75)),
    ),
    Target(
        work="the same: statements that a read of the state takes",
        unit="",
        bound=1,
        measured=lambda r: r.growth.read_statements,
    ),
    Target(
        work="`serve`, cold start to ready",
        unit="s",
        bound=1.5,
        measured=lambda r: r.start("serve").median,
        floor=lambda r: r.start("bare Litestar").median,
        floor_is="a bare Litestar application",
        peers=Peers((1.2, 3.0, 3.1)),
        drawn="Cold start",
    ),
    Target(
        work="`dev` on existing data to ready",
        unit="s",
        bound=3,
        measured=lambda r: r.start("dev").median,
        floor=lambda r: r.start("bare Litestar").median,
        floor_is="a bare Litestar application",
    ),
    Target(
        work="idle memory of `serve`, resident",
        unit="MB",
        bound=110,
        measured=lambda r: r.start("serve").rss_mb,
        floor=lambda r: r.start("bare Litestar").rss_mb,
        floor_is="a bare Litestar application",
        peers=Peers((121, 157, 158)),
        drawn="Idle memory",
    ),
    Target(
        work="bare request (`GET /api/v1/ok`) ÷ Litestar's hello",
        unit="×",
        bound=0.7,
        is_maximum=False,
        measured=bare_request,
        floor=lambda _: 1.0,
        floor_is="Litestar's hello",
    ),
)


def verdicts(result: Result, targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """Compare every target with ``result``."""
    found = []
    for target in targets:
        value = target.measured(result)
        floor = target.floor(result) if target.floor else None
        best = target.peers.best(lowest=target.is_maximum) if target.peers else None
        better = None if best is None else best / value if target.is_maximum else value / best
        found.append(
            Verdict(
                target=target,
                value=value,
                met=value <= target.bound if target.is_maximum else value >= target.bound,
                floor=floor,
                floor_ratio=None if floor is None else value / floor,
                peers_ratio=better,
            )
        )
    return found
