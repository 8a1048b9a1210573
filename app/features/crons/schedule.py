"""Compute when a cron is due: five-field expressions in IANA time zones. Pure.

Daylight saving changes follow Debian's cron: a fixed time that is skipped runs right after the change, one that occurs
twice runs once; with a ``*`` for minute or hour, elapsed time counts.
"""

import functools
import importlib.resources
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]
from cronsim import CronSim, CronSimError

from app.base.errors import Invalid

MAX_EXPRESSION_LENGTH = 200
"""In characters."""

FIELDS = 5
EXAMPLE = "use five fields (minute, hour, day of month, month, day of week), as in '0 9 * * MON-FRI'"


def next_slot(schedule: str, timezone: str | None, after: datetime) -> datetime | None:
    """Return the first time of ``schedule`` after ``after``, in UTC; None if there is none within 50 years.

    ``timezone`` defaults to UTC. Raises ``Invalid``.
    """
    if len(schedule) > MAX_EXPRESSION_LENGTH or len(schedule.split()) != FIELDS:
        raise _bad(schedule, EXAMPLE)
    try:
        times = CronSim(schedule, after.astimezone(zone_of(timezone)))
    except CronSimError as error:
        raise _bad(schedule, f"{str(error).lower()}; {EXAMPLE}") from error
    for time in times:
        slot = time.astimezone(UTC)
        if slot > after:  # cronsim repeats a time that occurs twice
            return slot
    return None


def first_slot(schedule: str, timezone: str | None, after: datetime) -> datetime:
    """Return ``next_slot``. Raises ``Invalid``, also for a schedule without a next time."""
    slot = next_slot(schedule, timezone, after)
    if slot is None:
        raise _bad(schedule, "it matches no future time")
    return slot


def upcoming(schedule: str, timezone: str | None, after: datetime, count: int) -> list[datetime]:
    """Return the next ``count`` times of ``schedule`` after ``after``, in UTC. Raises ``Invalid`` if there is none."""
    slots = [first_slot(schedule, timezone, after)]
    while len(slots) < count and (slot := next_slot(schedule, timezone, slots[-1])) is not None:
        slots.append(slot)
    return slots


def zone_of(name: str | None) -> tzinfo:
    """Return the time zone ``name``, UTC if None. Raises ``Invalid`` if it is unknown."""
    if name is None:
        return UTC
    if name not in zone_names():
        raise Invalid(
            f"Unknown time zone {name[:100]!r}: use an IANA name such as 'Europe/Berlin' or 'UTC'.",
            (("/timezone", "unknown time zone"),),
        )
    return ZoneInfo(name)


@functools.cache
def zone_names() -> frozenset[str]:
    """Return the time zone names of the bundled IANA database, the same on every machine."""
    return frozenset(importlib.resources.files(tzdata).joinpath("zones").read_text().split())


def _bad(schedule: str, why: str) -> Invalid:
    return Invalid(f"Invalid schedule {schedule[:MAX_EXPRESSION_LENGTH]!r}: {why}.", (("/schedule", "not acceptable"),))
