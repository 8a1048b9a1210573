"""A run is accepted, takes steps, ends; another owner resumes where one stopped."""

import asyncio

import msgspec
import pytest

from app.agents.port import RunContext, RunOutcome
from app.base.errors import Conflict, NotFound
from app.base.ids import new_id
from app.domain.event_id import EventId
from app.domain.messages import Usage
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, fetch, said, step


def contents(values: dict[str, list[dict[str, str]]]) -> list[str]:
    return [message["content"] for message in values["messages"]]


async def statuses(database: Database) -> list[str]:
    return [row["status"] for row in await fetch(database, "select status from runs order by ordinal")]


async def test_a_run_answers_and_leaves_its_steps_and_checkpoints(engine: Engine, database: Database) -> None:
    run = await engine.begin("hello")
    assert contents(await engine.result(run)) == ["hello", "echo: hello"]
    rows = await fetch(database, "select source, step, next, parent_id is null as first from checkpoints order by step")
    assert rows == [
        {"source": "input", "step": -1, "next": ["agent"], "first": True},
        {"source": "loop", "step": 0, "next": [], "first": False},
    ]
    assert await fetch(database, "select step, node, epoch from steps") == [{"step": 0, "node": "agent", "epoch": 1}]
    (thread,) = await fetch(database, "select status, live_run, queued, runs from threads")
    assert thread == {"status": "idle", "live_run": None, "queued": 0, "runs": 1}


async def test_the_database_records_every_transition(engine: Engine, database: Database) -> None:
    run = await engine.begin("hello")
    await engine.result(run)
    rows = await fetch(database, "select old_status, new_status, reason from run_transitions order by number")
    assert rows == [
        {"old_status": None, "new_status": "running", "reason": "accepted"},
        {"old_status": "running", "new_status": "success", "reason": "done"},
    ]


async def test_a_conversation_continues_over_several_runs(engine: Engine) -> None:
    first = await engine.begin("one")
    await engine.result(first)
    second = await engine.begin("two", thread=first.thread_id)
    assert contents(await engine.result(second)) == ["one", "echo: one", "two", "echo: two"]


async def test_a_process_without_a_cached_state_loads_the_thread(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as first:
        run = await first.begin("one")
        await first.result(run)
    async with engine_on(database, SteeredAgent("echo", echo)) as second:
        again = await second.begin("two", thread=run.thread_id)
        assert contents(await second.result(again)) == ["one", "echo: one", "two", "echo: two"]


async def test_an_unknown_thread_or_assistant_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound):
        await engine.accept("x", create_thread=False)
    with pytest.raises(NotFound):
        await engine.accept("x", assistant_id=new_id())
    with pytest.raises(NotFound):
        await engine.accept("x", tenant_id=new_id())


async def test_reject_raises_a_conflict_on_a_busy_thread(database: Database) -> None:
    release = asyncio.Event()

    async def wait(_: RunContext) -> RunOutcome:
        await release.wait()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", wait)) as engine:
        first = await engine.begin("x", agent="steered")
        with pytest.raises(Conflict):
            await engine.begin("y", agent="steered", thread=first.thread_id, multitask_strategy="reject")
        release.set()
        await engine.result(first)


async def test_fifty_runs_on_one_thread_run_one_after_the_other_in_order(database: Database) -> None:
    live = 0
    most = 0

    async def work(context: RunContext) -> RunOutcome:
        nonlocal live, most
        live += 1
        most = max(most, live)
        await context.commit(step("thinking", following=("agent",)))
        live -= 1
        return RunOutcome(step=step("done"))

    async with engine_on(database, SteeredAgent("steered", work), sweeping=True) as engine:
        thread = new_id()
        runs = await asyncio.gather(*(engine.begin(str(n), agent="steered", thread=thread) for n in range(50)))
        for run in runs:
            await engine.result(run)
    assert most == 1
    assert await statuses(database) == ["success"] * 50
    started = await fetch(  # started_at is the start of a statement, which may have waited for a lock
        database,
        "select r.ordinal from run_transitions t join runs r using (run_id) where t.new_status = 'running' "
        "order by t.number",
    )
    assert [row["ordinal"] for row in started] == list(range(1, 51))


async def test_an_agent_that_raises_ends_its_run_with_error(database: Database) -> None:
    async def fail(context: RunContext) -> RunOutcome:
        await context.commit(step("so far", following=("agent",)))
        raise ValueError("boom")

    async with engine_on(database, SteeredAgent("steered", fail)) as engine:
        run = await engine.begin("x", agent="steered")
        assert await engine.result(run) == {"__error__": {"error": "ValueError", "message": "boom"}}
        # asked again, after the fact, the answer is the same
        assert await engine.result(run) == {"__error__": {"error": "ValueError", "message": "boom"}}
        stream = (await engine.stream(run)).decode()
    assert 'event: error\r\ndata: {"error":"ValueError","message":"boom"}' in stream
    assert '"status":"error"' in stream
    (thread,) = await fetch(database, "select status, error::text from threads")
    assert thread["status"] == "error"
    assert msgspec.json.decode(thread["error"]) == {"error": "ValueError", "message": "boom"}
    assert len(await fetch(database, "select 1 from checkpoints")) == 2


async def test_a_run_over_its_time_limit_ends_with_timeout(database: Database) -> None:
    async def hang(_: RunContext) -> RunOutcome:
        await asyncio.Event().wait()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", hang, seconds=0.05)) as engine:
        run = await engine.begin("x", agent="steered")
        assert (await engine.result(run))["__error__"]["error"] == "RunTimeout"
    assert await statuses(database) == ["timeout"]


async def test_a_cancelled_run_keeps_its_committed_steps(database: Database) -> None:
    committed = asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        await context.commit(step("kept", following=("agent",)))
        committed.set()
        await asyncio.Event().wait()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        run = await engine.begin("x", agent="steered")
        await committed.wait()
        await engine.supervisor.cancel(TENANT, [run.run_id], "interrupt")
        assert contents(await engine.result(run)) == ["x", "kept"]
    (row,) = await fetch(database, "select status, reason from runs")
    assert row == {"status": "interrupted", "reason": "cancelled"}


async def test_a_queued_run_can_be_cancelled(database: Database) -> None:
    release = asyncio.Event()

    async def wait(_: RunContext) -> RunOutcome:
        await release.wait()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", wait)) as engine:
        first = await engine.begin("x", agent="steered")
        second = await engine.begin("y", agent="steered", thread=first.thread_id)
        assert not second.started
        await engine.supervisor.cancel(TENANT, [second.run_id], "interrupt")
        release.set()
        await engine.result(first)
        await engine.result(second)
    assert await statuses(database) == ["success", "interrupted"]
    (thread,) = await fetch(database, "select status, queued from threads")
    assert thread == {"status": "idle", "queued": 0}


async def test_a_draining_process_hands_its_runs_over_at_the_step_boundary(database: Database) -> None:
    asked = 0
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        nonlocal asked
        if len(context.state.elements()) == 1:
            asked += 1
            reached.set()
            await go_on.wait()
            await context.commit(step("first", following=("agent",)))
        return RunOutcome(step=step("second"))

    agent = SteeredAgent("steered", work)
    first, second = Engine(database, agent), Engine(database, agent)
    await first.start()
    run = await first.begin("x", agent="steered", modes=["updates"])
    before = asyncio.ensure_future(first.stream(run))
    await reached.wait()
    draining = asyncio.ensure_future(first.supervisor.drain(10))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    cut = (await before).decode()
    assert cut.endswith("retry: 1000\r\n\r\n")
    assert "event: end" not in cut
    await first.stop()
    await second.start(sweeping=True)
    assert contents(await second.result(run)) == ["x", "first", "second"]
    whole = (await second.stream(run, after=EventId(1, 1))).decode()
    await second.stop()
    assert asked == 1
    assert [line for line in whole.splitlines() if line.startswith("id: ")] == [
        "id: 1-2",
        "id: 2-1",
        "id: 2-2",
        "id: 2-3",
    ]
    (row,) = await fetch(database, "select epoch, attempts from runs")
    assert row == {"epoch": 2, "attempts": 1}


async def test_a_run_of_a_dead_owner_resumes_from_its_last_step(database: Database) -> None:
    hang = asyncio.Event()
    seen: list[int] = []

    async def work(context: RunContext) -> RunOutcome:
        seen.append(len(context.state.elements()))
        if len(seen) == 1:
            await context.commit(step("first", following=("agent",)))
            hang.set()
            await asyncio.Event().wait()
        return RunOutcome(step=step("second"))

    agent = SteeredAgent("steered", work)
    dead = Engine(database, agent)
    await dead.start()
    run = await dead.begin("x", agent="steered")
    await hang.wait()
    await fetch(database, "update runs set lease_until = now() - interval '1 second'")
    async with engine_on(database, agent, sweeping=True) as other:
        assert contents(await other.result(run)) == ["x", "first", "second"]
    await dead.stop()
    assert seen == [1, 2]
    (row,) = await fetch(database, "select status, epoch, attempts from runs")
    assert row == {"status": "success", "epoch": 2, "attempts": 2}


async def test_an_owner_that_lost_its_lease_commits_nothing(database: Database) -> None:
    go_on = asyncio.Event()
    failed = asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        await go_on.wait()
        try:
            await context.commit(step("never", following=("agent",)))
        finally:
            failed.set()
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        await engine.begin("x", agent="steered")
        await fetch(database, "update runs set epoch = epoch + 1, owner = gen_random_uuid()")
        go_on.set()
        await failed.wait()
    assert await fetch(database, "select 1 from steps") == []
    assert await statuses(database) == ["running"]


async def test_a_run_with_a_delay_waits_for_it_and_then_runs(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo), sweeping=True) as engine:
        run = await engine.accept("later", delay=0.3)
        assert not run.started
        engine.supervisor.queued(0.3)
        assert contents(await engine.result(run)) == ["later", "echo: later"]
    (row,) = await fetch(database, "select started_at >= created_at + interval '0.3 seconds' as waited from runs")
    assert row["waited"]


async def test_usage_of_all_steps_is_added_up(database: Database) -> None:
    async def work(context: RunContext) -> RunOutcome:
        used = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
        from app.agents.port import Step

        await context.commit(Step(node="agent", update={"messages": [said("a")]}, next=("agent",), usage=used))
        return RunOutcome(step=Step(node="agent", update={"messages": [said("b")]}, usage=used))

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        await engine.result(await engine.begin("x", agent="steered"))
    (row,) = await fetch(database, "select usage ->> 'total_tokens' as tokens from runs")
    assert row["tokens"] == "6"
