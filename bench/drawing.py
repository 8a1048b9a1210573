"""Draw the picture of docs/explanation/performance.md: SVG with eight panels of dots, for light and dark themes.

If figures differ by much, a panel's axis is logarithmic with a grid at powers of ten; else it begins at zero.
"""

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path

import msgspec

from bench.figures import Result
from bench.report import amount, number
from bench.targets import PEERS, Verdict, verdicts

PICTURE = Path(__file__).parent.parent / "docs" / "explanation" / "performance.svg"

WIDTH, MARGIN, HEAD, FOOT = 800, 24, 78, 58
PANEL_WIDTH, PANEL_HEIGHT, ROW = 364, 166, 19
LABELS, VALUES = 100, 92
"""Width for names on the left of a panel and for figures on its right."""
TITLES = 40
FAR_APART = 20
"""Maximum ÷ minimum from which an axis is logarithmic."""

STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 19px; font-weight: 600 } .panel { font-size: 13.5px; font-weight: 600 }
  .quiet { fill: #59636e } .tick { font-size: 10.5px; fill: #59636e }
  .own { font-weight: 600; fill: #0a58ca } .end { text-anchor: end } .middle { text-anchor: middle }
  .ground { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #e4e8ec } .stem { stroke: #c3cad2; stroke-width: 2 }
  .dot { fill: #8b949e } .floor { fill: #ffffff; stroke: #8b949e; stroke-width: 2 }
  .own-stem { stroke: #0a58ca; stroke-width: 3 } .own-dot { fill: #0a58ca }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet, .tick { fill: #9198a1 } .own { fill: #6cb0ff }
    .ground { fill: #0d1117; stroke: #3d444d } .grid { stroke: #262c34 } .stem { stroke: #4a525c }
    .dot { fill: #9198a1 } .floor { fill: #0d1117; stroke: #9198a1 }
    .own-stem { stroke: #6cb0ff } .own-dot { fill: #6cb0ff }
  }
"""


class Axis(msgspec.Struct, frozen=True):
    """An axis, which maps values to 0 … 1, with its grid."""

    low: float
    high: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Return the position of ``value``, from 0 to 1."""
        if self.logarithmic:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return the grid values."""
        if self.logarithmic:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1, 1 + (last - first) // 6)]
        return [self.high * part / 4 for part in range(5)]


def axis_for(values: list[float]) -> Axis:
    """Return an axis that covers all ``values``."""
    low, high = min(values), max(values)
    if high > FAR_APART * low:
        return Axis(10.0 ** math.floor(math.log10(low * 0.8)), 10.0 ** math.ceil(math.log10(high)), True)
    unit = 10.0 ** math.floor(math.log10(high))
    top = next(unit * step for step in (1, 2, 4, 6, 8, 10, 20) if unit * step >= high)
    return Axis(0.0, top, False)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Return a text element."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line element."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def panel(verdict: Verdict, left: float, top: float) -> Iterator[str]:
    """Draw one target: this server, its floor, its peers."""
    target = verdict.target
    peers = target.peers.values if target.peers else ()
    known = [(name, value) for name, value in zip(PEERS, peers, strict=False) if value is not None]
    rows = [("this server", verdict.value), ("bare floor", verdict.floor or 0.0), *known]
    axis = axis_for([value for _, value in rows if value])
    start, width = left + LABELS, PANEL_WIDTH - LABELS - VALUES
    aim = f"{'less' if target.is_maximum else 'more'} is better · target {'≤' if target.is_maximum else '≥'} "
    yield text(left, top + 12, target.drawn, "panel")
    yield text(left, top + 29, aim + amount(target.bound, target.unit), "quiet")
    bottom = top + TITLES + ROW * len(rows)
    for tick in axis.ticks():
        x = start + axis.place(tick) * width
        yield line(x, top + TITLES, x, bottom, "grid")
        yield text(x, bottom + 12, short(tick), "tick middle")
    for n, (name, value) in enumerate(rows):
        y, x = top + TITLES + ROW * n + ROW / 2, start + axis.place(value) * width
        stem, dot, words = ("own-stem", "own-dot", "own") if n == 0 else ("stem", "floor" if n == 1 else "dot", "")
        yield text(start - 8, y + 4, name, f"{words} end".strip())
        yield line(start, y, x, y, stem)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if n == 0 else 4}" class="{dot}"/>'
        yield text(left + PANEL_WIDTH, y + 4, brief(value, target.unit), f"{words} end".strip())


def brief(value: float, unit: str) -> str:
    """Format a figure for the right of a panel."""
    return amount(value, unit) if value < 100_000 else f"{short(value)} {unit}"


def short(value: float) -> str:
    """Format a number of the grid."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{number(value / size)}{letter}"
    return number(value)


def draw(result: Result) -> str:
    """Return the picture of ``result``."""
    drawn = [one for one in verdicts(result) if one.target.drawn]
    height = HEAD + PANEL_HEIGHT * math.ceil(len(drawn) / 2) + FOOT
    machine = result.machine
    where = (
        f"One worker, PostgreSQL {machine.postgres} beside it with fsync on, client on the same {machine.cores} cores "
        f"({machine.cpu}), {result.at[:10]}"
    )
    title = "agent-service: what it costs, against its bare parts and its peers"
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" class="ground"/>',
        text(MARGIN, 36, title, "title"),
        text(MARGIN, 57, where, "quiet"),
    ]
    for n, verdict in enumerate(drawn):
        parts += panel(verdict, MARGIN + n % 2 * (WIDTH - 2 * MARGIN - PANEL_WIDTH), HEAD + n // 2 * PANEL_HEIGHT)
    floor = "Bare floor: the bare parts alone do the same work, in the same run. Axes not from 0 are logarithmic."
    peers = (
        "Peers: measured earlier on a machine of the same kind. LangGraph dev 0.16.7 keeps all in memory; Aegra 0.11."
    )
    parts += [text(MARGIN, height - 34, floor, "quiet"), text(MARGIN, height - 16, peers, "quiet"), "</svg>"]
    return "\n".join(parts) + "\n"
