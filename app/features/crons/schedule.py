"""When a cron is due: expressions of five fields in IANA time zones. Pure.

Across clock changes as Debian's cron has it. A fixed time of day that the change leaves out comes right after it, and
one that the change brings twice counts once; with a ``*`` for the minute or the hour real time counts.
"""

import functools
import importlib.resources
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]
from cronsim import CronSim, CronSimError

from app.base.errors import Invalid

MAX_EXPRESSION_LENGTH = 200
"""Characters of an expression."""

FIELDS = 5
EXAMPLE = "use five fields (minute, hour, day of month, month, day of week), as in '0 9 * * MON-FRI'"


def next_slot(schedule: str, timezone: str | None, after: datetime) -> datetime | None:
    """The first time of ``schedule`` later than ``after``, in UTC; None when there is none within 50 years.

    Without ``timezone`` the expression is read in UTC. Raises ``Invalid``.
    """
    if len(schedule) > MAX_EXPRESSION_LENGTH or len(schedule.split()) != FIELDS:
        raise _bad(schedule, EXAMPLE)
    try:
        times = CronSim(schedule, after.astimezone(zone_of(timezone)))
    except CronSimError as error:
        raise _bad(schedule, f"{str(error).lower()}; {EXAMPLE}") from error
    for time in times:
        slot = time.astimezone(UTC)
        if slot > after:  # a time that comes twice is given once more in its second hour
            return slot
    return None


def first_slot(schedule: str, timezone: str | None, after: datetime) -> datetime:
    """As ``next_slot``. Raises ``Invalid`` also for a schedule that never comes."""
    slot = next_slot(schedule, timezone, after)
    if slot is None:
        raise _bad(schedule, "that time never comes")
    return slot


def zone_of(name: str | None) -> tzinfo:
    """The time zone ``name``; UTC for none. Raises ``Invalid`` for one that is unknown."""
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
    """The names of the IANA data base, the same on every machine."""
    return frozenset(importlib.resources.files(tzdata).joinpath("zones").read_text().split())


def _bad(schedule: str, why: str) -> Invalid:
    return Invalid(f"Invalid schedule {schedule[:MAX_EXPRESSION_LENGTH]!r}: {why}.", (("/schedule", "not acceptable"),))
