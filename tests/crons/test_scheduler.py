"""The scheduler: exactly one run for each time of a schedule, over all processes."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.base.errors import NotFound, Unavailable
from app.features.crons import queries
from app.features.crons import scheduler as module
from app.infra.db.engine import Database
from tests.crons.replicas import PRINCIPAL, Clock, Replica, replicas_on, runs_of, slots_of
from tests.runs.engine import TENANT, fetch
from tests.waiting import eventually

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def test_a_cron_makes_a_run_at_each_of_its_times_and_not_before(replica: Replica) -> None:
    cron = await replica.create("*/5 * * * *")
    assert cron.next_run_date == NOON + 5 * MINUTE
    assert await replica.at(NOON + 5 * MINUTE - timedelta(seconds=1)) == 0
    assert await replica.at(NOON + 5 * MINUTE) == 1
    assert await replica.at(NOON + 6 * MINUTE) == 1
    assert (await replica.get(cron)).next_run_date == NOON + 10 * MINUTE
    assert await replica.at(NOON + 10 * MINUTE) == 2
    runs = await runs_of(replica.database, cron)
    assert [(slot, run_id) for slot, run_id, _ in await slots_of(replica.database, cron)] == [
        (NOON + 5 * MINUTE, runs[0]["run_id"]),
        (NOON + 10 * MINUTE, runs[1]["run_id"]),
    ]


async def test_runs_of_a_cron_are_executed(replica: Replica) -> None:
    cron = await replica.create(metadata={"team": "a"}, on_run_completed="keep")
    await replica.at(NOON + 5 * MINUTE)

    async def done() -> bool:
        return [run["status"] for run in await runs_of(replica.database)] == ["success"]

    await eventually(done)
    (thread,) = await fetch(replica.database, "select temporary, metadata from threads")
    assert thread["temporary"] is False
    assert thread["metadata"]["cron_id"] == str(cron.cron_id)
    (run,) = await runs_of(replica.database)
    assert run["metadata"]["team"] == "a"


async def test_by_default_the_thread_of_a_run_is_deleted_with_it(replica: Replica) -> None:
    await replica.create()
    await replica.create(on_run_completed="delete")
    await replica.at(NOON + 5 * MINUTE)
    threads = await fetch(replica.database, "select temporary, metadata from threads")
    assert [thread["temporary"] for thread in threads] == [True, True]


async def test_many_schedulers_at_once_make_one_run_for_each_time(database: Database, clock: Clock) -> None:
    async with replicas_on(database, clock, 4) as replicas:
        crons = [await replicas[0].create() for _ in range(6)]
        for turn in range(1, 6):
            clock.at = NOON + 5 * turn * MINUTE
            failed = await asyncio.gather(*(replica.scheduler.fire_due() for replica in replicas for _ in range(3)))
            assert not any(failed)
            for cron in crons:
                slots = await slots_of(database, cron)
                assert [slot for slot, _, _ in slots] == [NOON + 5 * n * MINUTE for n in range(1, turn + 1)]
                assert [run_id for _, run_id, _ in slots] == [run["run_id"] for run in await runs_of(database, cron)]
        assert len(await runs_of(database)) == 30


async def test_a_clock_that_lags_makes_no_second_run_for_a_time(replica: Replica) -> None:
    cron = await replica.create()
    assert await replica.at(NOON + 5 * MINUTE) == 1
    replica.clock.at = NOON + 4 * MINUTE  # another machine with a clock that lags
    assert (await replica.patch(cron, schedule="*/5 0-23 * * *")).next_run_date == NOON + 5 * MINUTE
    assert await replica.at(NOON + 5 * MINUTE) == 1
    assert (await replica.get(cron)).next_run_date == NOON + 10 * MINUTE


async def test_missed_times_get_one_run_for_all(replica: Replica) -> None:
    cron = await replica.create("* * * * *")
    later = NOON + timedelta(hours=30, seconds=20)
    assert await replica.at(later) == 1
    assert (await replica.get(cron)).next_run_date == NOON + timedelta(hours=30) + MINUTE
    assert await replica.at(later) == 1
    assert await replica.at(later + MINUTE) == 2


async def test_a_disabled_cron_makes_no_runs_and_none_for_that_time_later(replica: Replica) -> None:
    off = await replica.create(enabled=False)
    cron = await replica.create()
    assert off.next_run_date is None
    assert (await replica.patch(cron, enabled=False)).next_run_date is None
    assert await replica.at(NOON + timedelta(hours=1)) == 0
    assert (await replica.patch(cron, enabled=True)).next_run_date == NOON + 65 * MINUTE
    assert await replica.at(NOON + 64 * MINUTE) == 0
    assert await replica.at(NOON + 65 * MINUTE) == 1


async def test_a_cron_stops_at_its_end_time(replica: Replica) -> None:
    cron = await replica.create(end_time=NOON + 10 * MINUTE)
    assert await replica.at(NOON + 5 * MINUTE) == 1
    assert await replica.at(NOON + 10 * MINUTE + timedelta(seconds=2)) == 2
    assert (await replica.get(cron)).next_run_date is None
    assert await replica.at(NOON + timedelta(days=1)) == 2
    renamed = await replica.patch(cron, metadata={"a": 1}, enabled=True)
    assert (renamed.next_run_date, renamed.end_time) == (None, NOON + 10 * MINUTE)
    again = await replica.patch(cron, end_time=None)
    assert again.next_run_date == NOON + timedelta(days=1) + 5 * MINUTE
    assert await replica.at(NOON + timedelta(days=1) + 5 * MINUTE) == 3


async def test_times_missed_before_the_end_are_not_made_up_after_it(replica: Replica) -> None:
    cron = await replica.create(end_time=NOON + 7 * MINUTE)
    assert await replica.at(NOON + 8 * MINUTE) == 0
    assert (await replica.get(cron)).next_run_date is None


async def test_a_cron_with_an_end_before_its_first_time_never_fires(replica: Replica) -> None:
    assert (await replica.create(end_time=NOON + MINUTE)).next_run_date is None


async def test_a_new_schedule_counts_from_now_on(replica: Replica) -> None:
    cron = await replica.create("0 13 * * *")
    assert (await replica.patch(cron, schedule="*/10 * * * *")).next_run_date == NOON + 10 * MINUTE
    assert await replica.at(NOON + 10 * MINUTE) == 1
    assert (await replica.patch(cron, schedule="0 20 * * *")).next_run_date == NOON + timedelta(hours=8)
    assert (await replica.patch(cron, timezone="Asia/Tokyo")).next_run_date == NOON + timedelta(hours=23)
    assert await replica.at(NOON + timedelta(hours=22)) == 1


async def test_a_change_of_other_fields_keeps_a_due_time(replica: Replica) -> None:
    cron = await replica.create()
    replica.clock.at = NOON + 6 * MINUTE
    assert (await replica.patch(cron, metadata={"a": 1})).next_run_date == NOON + 5 * MINUTE
    assert (await replica.patch(cron, end_time=NOON + timedelta(days=1))).next_run_date == NOON + 5 * MINUTE
    assert await replica.at(NOON + 6 * MINUTE) == 1


async def test_a_deleted_cron_makes_no_more_runs_and_leaves_those_it_made(replica: Replica) -> None:
    cron = await replica.create()
    assert await replica.at(NOON + 5 * MINUTE) == 1
    await replica.crons.delete(PRINCIPAL, cron.cron_id)
    assert await replica.at(NOON + 10 * MINUTE) == 1
    assert await slots_of(replica.database, cron) == []
    with pytest.raises(NotFound):
        await replica.get(cron)


async def test_a_failing_cron_does_not_block_others(replica: Replica) -> None:
    broken = await replica.create()
    cron = await replica.create()
    await fetch(replica.database, "update crons set payload = 'x' where cron_id = $1", broken.cron_id)
    replica.clock.at = NOON + 5 * MINUTE
    assert await replica.scheduler.fire_due() == [broken.cron_id]
    assert [run["cron_id"] for run in await runs_of(replica.database)] == [str(cron.cron_id)]
    assert (await replica.get(broken)).next_run_date == NOON + 5 * MINUTE
    assert await replica.scheduler._until_next([broken.cron_id]) == module.MAX_POLL_SECONDS


async def test_a_run_that_the_agent_no_longer_accepts_is_skipped_and_recorded(replica: Replica) -> None:
    cron = await replica.create()
    await fetch(replica.database, 'update crons set payload = \'{"interrupt_before": ["gone"]}\'')
    assert await replica.at(NOON + 5 * MINUTE) == 0
    ((_, run_id, problem),) = await slots_of(replica.database, cron)
    assert run_id is None
    assert "names 'gone'" in (problem or "")
    assert (await replica.get(cron)).next_run_date == NOON + 10 * MINUTE


async def test_a_run_that_is_not_committed_leaves_its_time_due(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    cron = await replica.create()

    async def away(*_: object) -> object:
        raise Unavailable("The database cannot be reached.")

    with monkeypatch.context() as patch:
        patch.setattr(replica.engine.claims, "accept_on", away)
        replica.clock.at = NOON + 5 * MINUTE
        with pytest.raises(Unavailable):
            await replica.scheduler.fire_due()
    assert await slots_of(replica.database, cron) == []
    assert await replica.at(NOON + 5 * MINUTE) == 1


async def test_slots_older_than_a_day_are_deleted(replica: Replica) -> None:
    cron = await replica.create("0 * * * *")
    for hour in (1, 2, 25, 26, 27):
        await replica.at(NOON + timedelta(hours=hour))
    slots = [slot for slot, _, _ in await slots_of(replica.database, cron)]
    assert slots == [NOON + timedelta(hours=hour) for hour in (3, 26, 27)]


async def test_a_started_scheduler_starts_due_runs(replica: Replica) -> None:
    await replica.create()
    replica.clock.at = NOON + 5 * MINUTE
    replica.scheduler.start()

    async def made() -> bool:
        return len(await runs_of(replica.database)) == 1

    await eventually(made)


async def test_a_closing_scheduler_finishes_the_run_it_is_creating(replica: Replica) -> None:
    cron = await replica.create()
    replica.clock.at = NOON + 5 * MINUTE

    async def waits() -> bool:
        return bool(await fetch(replica.database, "select 1 from pg_locks where not granted"))

    async with replica.database.engine_connection() as connection:
        rival = connection.transaction()
        await rival.start()
        await connection.execute(
            "insert into cron_slots (tenant_id, cron_id, slot) values ($1, $2, $3)",
            TENANT,
            cron.cron_id,
            cron.next_run_date,
        )
        replica.scheduler.start()
        await eventually(waits)
        closing = asyncio.create_task(replica.scheduler.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        await rival.rollback()
        await closing
    (run,) = await runs_of(replica.database, cron)
    assert await slots_of(replica.database, cron) == [(NOON + 5 * MINUTE, run["run_id"], None)]


async def test_the_scheduler_resumes_when_the_database_is_back(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.create()
    replica.clock.at = NOON + 5 * MINUTE
    here, refused = replica.database.engine_connection, asyncio.Event()

    def away() -> object:
        refused.set()
        raise Unavailable("The database cannot be reached.")

    monkeypatch.setattr(module, "MAX_POLL_SECONDS", module.MIN_POLL_SECONDS)
    monkeypatch.setattr(replica.database, "engine_connection", away)
    replica.scheduler.start()
    await refused.wait()
    monkeypatch.setattr(replica.database, "engine_connection", here)

    async def made() -> bool:
        return len(await runs_of(replica.database)) == 1

    await eventually(made)


async def test_the_scheduler_sleeps_until_the_next_cron_is_due_within_bounds(replica: Replica) -> None:
    assert await replica.scheduler._until_next([]) == module.MAX_POLL_SECONDS
    await replica.create()
    assert await replica.scheduler._until_next([]) == module.MAX_POLL_SECONDS
    replica.clock.at = NOON + 5 * MINUTE - timedelta(seconds=3)
    assert await replica.scheduler._until_next([]) == 3.0
    replica.clock.at = NOON + timedelta(days=1)
    assert await replica.scheduler._until_next([]) == module.MIN_POLL_SECONDS


async def test_the_next_cron_is_found_by_the_index_of_due_times(database: Database) -> None:
    statements = (queries.CLAIM_DUE, "('2026-01-01', '{}', '{}')"), (queries.NEXT_DUE, "('{}', '{}')")
    for statement, parameters in statements:
        async with database.engine_connection() as connection:
            await connection.execute(f"prepare due as {statement}")
            plan = await connection.fetch(f"explain execute due{parameters}")
            await connection.execute("deallocate due")
        assert any("crons_due_idx" in row["QUERY PLAN"] for row in plan), plan
