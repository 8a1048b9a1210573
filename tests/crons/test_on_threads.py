"""Crons on a thread: their runs share it with other runs."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.agents.port import RunContext, RunOutcome
from app.base.errors import NotFound
from app.infra.db.engine import Database
from tests.crons.replicas import Clock, Replica, replicas_on, runs_of, slots_of
from tests.runs.engine import fetch, step
from tests.waiting import eventually

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def test_a_deleted_thread_takes_its_crons_along(replica: Replica) -> None:
    thread_id = await replica.thread()
    cron = await replica.create(thread_id=thread_id)
    await fetch(replica.database, "delete from threads where thread_id = $1", thread_id)
    assert await replica.at(NOON + 5 * MINUTE) == 0
    with pytest.raises(NotFound):
        await replica.get(cron)


async def test_the_runs_of_a_cron_on_a_thread_share_it(replica: Replica) -> None:
    thread_id = await replica.thread()
    cron = await replica.create(thread_id=thread_id)
    await replica.fires(cron, NOON + 5 * MINUTE)
    await replica.fires(cron, NOON + 10 * MINUTE)

    async def done() -> bool:
        return [run["status"] for run in await runs_of(replica.database, cron)] == ["success"] * 2

    await eventually(done)
    assert {run["thread_id"] for run in await runs_of(replica.database)} == {thread_id}


async def test_a_locked_thread_is_skipped(replica: Replica) -> None:
    cron = await replica.create(thread_id=await replica.thread())
    async with replica.database.engine_connection() as connection, connection.transaction():
        await connection.execute("select from threads where thread_id = $1 for update", cron.thread_id)
        assert await replica.at(NOON + 5 * MINUTE) == 0
    assert await replica.at(NOON + 5 * MINUTE) == 1


@pytest.mark.parametrize(
    "strategy,statuses",
    [
        ("reject", ["running"]),
        ("enqueue", ["running", "pending"]),
        ("interrupt", ["interrupted", "success"]),
        ("rollback", ["success"]),
    ],
)
async def test_a_busy_thread_is_handled_by_the_multitask_strategy(
    database: Database, clock: Clock, strategy: str, statuses: list[str]
) -> None:
    started, free = asyncio.Event(), asyncio.Event()

    async def slow_once(context: RunContext) -> RunOutcome:
        if not started.is_set():
            started.set()
            await free.wait()
        return RunOutcome(step=step("done"))

    async with replicas_on(database, clock, 1, slow_once) as (replica,):
        live = await replica.engine.begin("slow")
        await started.wait()
        cron = await replica.create(thread_id=live.thread_id, multitask_strategy=strategy)
        await replica.fires(cron, NOON + 5 * MINUTE)

        async def done() -> bool:
            return [
                row["status"] for row in await fetch(database, "select status from runs order by run_id")
            ] == statuses

        await eventually(done)
        ((slot, run_id, problem),) = await slots_of(database, cron)
        assert slot == NOON + 5 * MINUTE
        assert (run_id is None) == (strategy == "reject")
        assert ("already running" in (problem or "")) == (strategy == "reject")
        free.set()
