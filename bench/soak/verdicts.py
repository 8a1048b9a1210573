"""Verdicts of a soak: what was measured, the limit, and the value."""

import statistics
from collections.abc import Sequence

import msgspec

from bench.report import table
from bench.soak.samples import Memory

WARM_SHARE = 0.4
"""Share of the load that is warm-up, in which caches and pools fill."""
MAX_GROWTH = 0.06
"""Allowed growth of memory after the warm-up: allocators vary by a few percent."""
MAX_DESCRIPTORS = 6
MAX_TASKS = 6
ENOUGH_SAMPLES = 10


class Row(msgspec.Struct, frozen=True):
    """One verdict."""

    what: str
    allowed: str
    seen: str
    holds: bool


def slope(seen: Sequence[Memory]) -> float:
    """Return the growth in megabytes per hour, by least squares."""
    line = statistics.linear_regression([one.seconds for one in seen], [one.megabytes for one in seen])
    return line.slope * 3600


def of_memory(seen: Sequence[Memory]) -> Row:
    """Compare the memory of a worker that lived through the load: its first part and its last."""
    what = "memory of the worker that lived through the load"
    warm = [one for one in seen if one.seconds >= WARM_SHARE * seen[-1].seconds] if seen else []
    if len(warm) < ENOUGH_SAMPLES:
        return Row(what, "measured", f"{len(warm)} samples after warming up: let it run longer", holds=False)
    fifth = max(2, len(warm) // 5)
    first = statistics.median(one.megabytes for one in warm[:fifth])
    last = statistics.median(one.megabytes for one in warm[-fifth:])
    growth = last / first - 1
    seen_growth = f"{first:.1f} → {last:.1f} MB ({growth:+.1%}; {slope(warm):+.0f} MB an hour)"
    return Row(what, f"grows by at most {MAX_GROWTH:.0%} after warm-up", seen_growth, holds=growth <= MAX_GROWTH)


def of_gauges(before: dict[str, float], after: dict[str, float]) -> list[Row]:
    """Compare the gauges afterwards with those before."""
    limits = {
        "tasks": before["tasks"] + MAX_TASKS,
        "descriptors": before["descriptors"] + MAX_DESCRIPTORS,
        "connections in use": before["connections in use"],
    }
    rows = []
    labels = {"descriptors": "descriptors, without those of pooled connections"}
    for name, value in after.items():
        allowed = limits.get(name, 0.0)
        allowed_text = f"≤ {allowed:.0f} ({before[name]:.0f} before)" if name in limits else "0"
        rows.append(Row(labels.get(name, name), allowed_text, f"{value:.0f}", value <= allowed))
    return rows


def of_counts(left: dict[str, int], wrong: Sequence[str]) -> list[Row]:
    """Return rows for unfinished work and wrong responses."""
    rows = [Row(name, "0", str(count), count == 0) for name, count in left.items()]
    return [*rows, Row("wrong answers", "0", str(len(wrong)), not wrong)]


def shown(rows: Sequence[Row]) -> str:
    """Format the rows as a table."""
    return table(
        "what|allowed|seen|holds", [[row.what, row.allowed, row.seen, "yes" if row.holds else "**no**"] for row in rows]
    )
