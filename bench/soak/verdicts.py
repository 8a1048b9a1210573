"""What a soak must show, as rows: what was looked at, what was allowed, what was seen."""

import statistics
from collections.abc import Sequence

import msgspec

from bench.report import table
from bench.soak.samples import Memory

WARM_SHARE = 0.4
"""Of the load, whose memory does not count: caches and pools fill."""
MOST_GROWTH = 0.06
"""Of the memory after warming up that the rest of the load may add: what allocators keep varies by a few percent."""
MOST_DESCRIPTORS = 6
MOST_TASKS = 6
ENOUGH_SAMPLES = 10


class Row(msgspec.Struct, frozen=True):
    """One thing that must hold."""

    what: str
    allowed: str
    seen: str
    holds: bool


def slope(seen: Sequence[Memory]) -> float:
    """Megabytes an hour, by least squares."""
    line = statistics.linear_regression([one.seconds for one in seen], [one.megabytes for one in seen])
    return line.slope * 3600


def of_memory(seen: Sequence[Memory]) -> Row:
    """Memory of a worker that lived through all of the load: its first part against its last."""
    what = "memory of the worker that lived through all of it"
    warm = [one for one in seen if one.seconds >= WARM_SHARE * seen[-1].seconds] if seen else []
    if len(warm) < ENOUGH_SAMPLES:
        return Row(what, "measured", f"{len(warm)} samples after warming up: let it run longer", holds=False)
    fifth = max(2, len(warm) // 5)
    first = statistics.median(one.megabytes for one in warm[:fifth])
    last = statistics.median(one.megabytes for one in warm[-fifth:])
    growth = last / first - 1
    told = f"{first:.1f} → {last:.1f} MB ({growth:+.1%}; {slope(warm):+.0f} MB an hour)"
    return Row(what, f"grows by {MOST_GROWTH:.0%} at most after warming up", told, holds=growth <= MOST_GROWTH)


def of_gauges(before: dict[str, float], after: dict[str, float]) -> list[Row]:
    """What is held afterwards, against what was held before."""
    most = {
        "tasks": before["tasks"] + MOST_TASKS,
        "descriptors": before["descriptors"] + MOST_DESCRIPTORS,
        "connections in use": before["connections in use"],
    }
    rows = []
    told_as = {"descriptors": "descriptors, without those of pooled connections"}
    for name, value in after.items():
        allowed = most.get(name, 0.0)
        told = f"≤ {allowed:.0f} ({before[name]:.0f} before)" if name in most else "0"
        rows.append(Row(told_as.get(name, name), told, f"{value:.0f}", value <= allowed))
    return rows


def of_counts(left: dict[str, int], wrong: Sequence[str]) -> list[Row]:
    """What is not finished, and what was answered wrongly."""
    rows = [Row(name, "0", str(count), count == 0) for name, count in left.items()]
    return [*rows, Row("wrong answers", "0", str(len(wrong)), not wrong)]


def shown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    return table(
        "what|allowed|seen|holds", [[row.what, row.allowed, row.seen, "yes" if row.holds else "**no**"] for row in rows]
    )
