"""Schedules: daylight saving changes, time zones, validation."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.errors import Invalid
from app.features.crons.schedule import first_slot, next_slot, upcoming, zone_names

BERLIN = "Europe/Berlin"


def times(schedule: str, timezone: str | None, start: datetime, count: int) -> list[str]:
    """Return the next local times after ``start``, with the UTC offset in hours."""
    zone = ZoneInfo(timezone or "UTC")
    slots = upcoming(schedule, timezone, start, count)
    return [slot.astimezone(zone).strftime("%d %H:%M %z")[:-2] for slot in slots]


GAP = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
"""The day before 02:00 becomes 03:00 in Berlin."""

OVERLAP = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
"""The day before 03:00 becomes 02:00 in Berlin."""


def test_a_fixed_time_in_the_gap_comes_right_after_it_and_once() -> None:
    assert times("30 2 * * *", BERLIN, GAP, 2) == ["29 03:00 +02", "30 02:30 +02"]
    assert times("0,30 2,3 * * *", BERLIN, GAP, 3) == ["29 03:00 +02", "29 03:30 +02", "30 02:00 +02"]


def test_a_fixed_time_in_the_overlap_comes_once() -> None:
    assert times("30 2 * * *", BERLIN, OVERLAP, 2) == ["25 02:30 +02", "26 02:30 +01"]


def test_in_the_second_hour_of_the_overlap_a_fixed_time_has_passed() -> None:
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    assert times("30 2 * * *", BERLIN, second, 1) == ["26 02:30 +01"]


def test_every_hour_and_every_minute_go_by_real_time() -> None:
    assert times("30 * * * *", BERLIN, OVERLAP + timedelta(hours=11), 4) == [
        "25 01:30 +02",
        "25 02:30 +02",
        "25 02:30 +01",
        "25 03:30 +01",
    ]
    assert times("30 * * * *", BERLIN, GAP + timedelta(hours=12), 2) == ["29 01:30 +01", "29 03:30 +02"]


def test_a_local_time_stays_what_it_is_over_the_year() -> None:
    winter, summer = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7))
    assert times("0 9 * * *", BERLIN, winter, 1) == ["01 09:00 +01"]
    assert times("0 9 * * *", BERLIN, summer, 1) == ["01 09:00 +02"]
    assert times("0 9 * * *", None, summer, 1) == ["01 09:00 +00"]
    assert times("0 9 * * MON-FRI", "America/New_York", datetime(2026, 1, 3, tzinfo=UTC), 1) == ["05 09:00 -05"]


@given(
    st.sampled_from(["30 2 * * *", "0 0 * * *", "*/20 * * * *", "15 */2 * * *", "0,45 1-3 * * 0", "*/7 0-2 1 * *"]),
    st.sampled_from([BERLIN, "America/New_York", "Africa/Cairo", "America/Havana", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_times_increase_and_do_not_depend_on_the_start(schedule: str, timezone: str, start: datetime) -> None:
    slots = [start]
    for _ in range(4):
        slot = next_slot(schedule, timezone, slots[-1])
        assert slot is not None
        slots.append(slot)
    assert all(before < after for before, after in pairwise(slots))
    assert all(slot.tzinfo is UTC and slot.second == 0 for slot in slots[1:])
    between = slots[1] - (slots[1] - start) / 2
    assert next_slot(schedule, timezone, between) == slots[1]


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "*/0 * * * *",
        "5-1 * * * *",
        "a b c d e",
        "0 0 30 2 *",
        "0 0 * * 5#6",
        "1,,2 * * * *",
        "1/2/3 * * * *",
        "² * * * *",
        "0 0 31 4,6 MON#5 *",
        "0 0 */31 4,6 MON#5",
        ",".join(["1"] * 200) + " * * * *",
    ],
)
def test_an_invalid_schedule_is_refused_with_a_message(schedule: str) -> None:
    with pytest.raises(Invalid, match="Invalid schedule"):
        first_slot(schedule, None, OVERLAP)


@given(st.text(alphabet="0123456789*/,-#LW MONFE", max_size=40))
def test_any_text_is_a_schedule_or_refused(schedule: str) -> None:
    try:
        slot = next_slot(schedule, BERLIN, OVERLAP)
    except Invalid:
        return
    assert slot is None or slot > OVERLAP


@pytest.mark.parametrize(
    "name", ["", "Berlin", "europe/berlin", "../UTC", "/etc/localtime", "right/UTC", "x\0y", "CET-1"]
)
def test_an_unknown_time_zone_is_refused_with_a_message(name: str) -> None:
    with pytest.raises(Invalid, match="Unknown time zone"):
        next_slot("* * * * *", name, OVERLAP)


def test_every_time_zone_of_the_database_is_valid() -> None:
    assert {"UTC", "Europe/Berlin", "US/Pacific", "Etc/GMT+5"} < zone_names()
    for name in zone_names():
        assert next_slot("30 2 * * *", name, GAP) is not None
