"""A cancel works if the owner is in another process, dead, or ignores it. Leases here are long."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from app.agents.port import RunContext, RunOutcome
from app.base.ids import new_id
from app.domain.event_id import START
from app.engine.entries import ClaimedRun
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, fetch, step
from tests.runs.test_processes import RecordingReader, Speaker, two

LEASE = 600.0


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Engine]:
    """A process that accepts and follows, and executes nothing."""
    async with engine_on(database, SteeredAgent("echo", echo), lease=LEASE, max_runs=0, sweeping=True) as engine:
        yield engine


async def orphan(api: Engine, text: str) -> ClaimedRun:
    """A run with a dead owner, which claimed it and did nothing more."""
    run = await api.accept(text, owner=new_id())
    assert run.started
    return run


async def until(database: Database, sql: str, found: object) -> None:
    async with asyncio.timeout(20):
        while await fetch(database, sql) != found:  # noqa: ASYNC110  no signal comes from a row of a database
            await asyncio.sleep(0.05)


async def test_a_run_of_a_dead_owner_is_cancelled_before_its_lease_expires(database: Database, api: Engine) -> None:
    run = await orphan(api, "x")
    reader = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
    await api.supervisor.cancel(TENANT, [run.run_id], "interrupt")
    await asyncio.wait_for(api.streams.ended(TENANT, run.thread_id, run.run_id), 20)
    assert await fetch(database, "select status, reason from runs") == [
        {"status": "interrupted", "reason": "cancelled"}
    ]
    assert await fetch(database, "select status, live_run from threads") == [{"status": "idle", "live_run": None}]
    assert re.findall(rb"event: (\w+)", await reader.whole()) == [b"retracted", b"end"]


async def test_a_run_of_a_dead_owner_is_rolled_back_before_its_lease_expires(database: Database, api: Engine) -> None:
    run = await orphan(api, "x")
    await api.supervisor.cancel(TENANT, [run.run_id], "rollback")
    await until(database, "select status, live_run from threads", [{"status": "idle", "live_run": None}])
    assert await fetch(database, "select run_id from runs") == []


async def test_repeated_cancels_do_not_delay_the_end(database: Database, api: Engine) -> None:
    run = await orphan(api, "x")
    ended = asyncio.ensure_future(api.streams.ended(TENANT, run.thread_id, run.run_id))
    async with asyncio.timeout(20):
        while not ended.done():
            await api.supervisor.cancel(TENANT, [run.run_id], "interrupt")
            await asyncio.wait({ended}, timeout=0.2)
    assert await fetch(database, "select status from runs") == [{"status": "interrupted"}]


async def test_the_next_run_of_the_thread_starts_at_once(database: Database, api: Engine) -> None:
    async with engine_on(database, SteeredAgent("echo", echo), lease=LEASE, sweeping=True) as worker:
        run = await orphan(api, "x")
        following = await api.begin("next", thread=run.thread_id)
        await api.supervisor.cancel(TENANT, [run.run_id], "interrupt")
        values = await worker.result(following)
        assert values["messages"][-1]["content"] == "echo: next"


async def test_an_owner_that_ignores_a_cancel_loses_the_run_and_writes_nothing_more(database: Database) -> None:
    began, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn(context: RunContext) -> RunOutcome:
        began.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        try:
            await context.commit(step("too late"))
        finally:
            ended.set()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", stubborn), lease=LEASE, sweeping=True) as engine:
        run = await engine.begin("x", agent="steered")
        await asyncio.wait_for(began.wait(), 10)
        reader = RecordingReader(engine.streams.follow(TENANT, run.run_id, after=START, modes=None))
        await engine.supervisor.cancel(TENANT, [run.run_id], "interrupt")
        await asyncio.wait_for(engine.streams.ended(TENANT, run.thread_id, run.run_id), 20)
        assert (await reader.whole()).endswith(b"id: 2-2\r\n\r\n")
        may_end.set()
        await asyncio.wait_for(ended.wait(), 10)
        assert await fetch(database, "select step from steps") == []
    assert await fetch(database, "select status, reason from runs") == [
        {"status": "interrupted", "reason": "cancelled"}
    ]


async def test_a_run_without_a_cancel_keeps_its_owner_until_its_lease_expires(database: Database, api: Engine) -> None:
    kept, other = await orphan(api, "x"), await orphan(api, "y")
    await api.supervisor.cancel(TENANT, [other.run_id], "interrupt")
    await until(database, f"select status from runs where run_id = '{other.run_id}'", [{"status": "interrupted"}])
    assert await fetch(database, f"select status from runs where run_id = '{kept.run_id}'") == [{"status": "running"}]


async def test_a_cancel_without_a_signal_ends_the_run_of_a_draining_owner(database: Database) -> None:
    """The signal was lost: the run is not handed over, as another owner would take one more step."""
    began, steps = asyncio.Event(), 0

    async def work(context: RunContext) -> RunOutcome:
        nonlocal steps
        steps += 1
        began.set()
        await asyncio.Event().wait()
        return RunOutcome()

    steered = SteeredAgent("steered", work)
    async with engine_on(database, steered, lease=LEASE, sweeping=True) as first:
        await first.begin("x", agent="steered")
        await asyncio.wait_for(began.wait(), 10)
        await fetch(database, "update runs set cancel = 'interrupt', updated_at = now()")
    async with engine_on(database, steered, lease=LEASE, sweeping=True):
        await until(database, "select status, reason from runs", [{"status": "interrupted", "reason": "cancelled"}])
    assert steps == 1


async def test_a_rollback_reaches_another_process_and_restores_the_thread(database: Database) -> None:
    speaker = Speaker("never said to its end")

    async def work(context: RunContext) -> RunOutcome:
        await context.commit(step("so far", following=("agent",)))
        return await speaker.work(context)

    async with two(database, SteeredAgent("steered", work)) as (api, _):
        run = await api.begin("x", agent="steered")
        reader = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
        await asyncio.wait_for(speaker.called.wait(), 10)
        await api.supervisor.cancel(TENANT, [run.run_id], "rollback")
        await asyncio.wait_for(api.streams.ended(TENANT, run.thread_id, run.run_id), 10)
        await reader.whole()
        for table in ("runs", "steps", "checkpoints", "checkpoint_items"):
            assert await fetch(database, f"select from {table}") == [], table
        (thread,) = await fetch(database, "select status, live_run, head from threads")
        assert thread == {"status": "idle", "live_run": None, "head": None}


async def test_a_requeued_run_is_rolled_back_completely(database: Database, api: Engine) -> None:
    """Its commits are deleted, and its thread is restored."""
    row = "select status, head, last_number, queued, live_run, error, interrupts from threads"
    began = asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        if context.state.elements()[1:]:  # the thread's second run
            await context.commit(step("so far", following=("agent",)))
            began.set()
            await asyncio.Event().wait()
        return RunOutcome(step=step("first"))

    async with engine_on(database, SteeredAgent("echo", work), lease=LEASE) as worker:
        first = await worker.begin("x")
        await worker.result(first)
        before = await fetch(database, row)
        run = await worker.begin("y", thread=first.thread_id)
        await asyncio.wait_for(began.wait(), 10)
    waiting = "select status, epoch from runs where run_id = $1"
    assert await fetch(database, waiting, run.run_id) == [{"status": "pending", "epoch": 1}]
    await api.supervisor.cancel(TENANT, [run.run_id], "rollback")
    (found,), (wanted,) = await fetch(database, row), before
    assert found == {**wanted, "last_number": found["last_number"]}
    for table in ("runs", "steps", "checkpoints", "events"):
        assert await fetch(database, f"select from {table} where run_id = $1", run.run_id) == [], table
    async with engine_on(database, SteeredAgent("echo", echo), lease=LEASE) as worker:
        values = await worker.result(await worker.begin("z", thread=first.thread_id))
    assert [message["content"] for message in values["messages"]] == ["x", "first", "z", "echo: z"]
