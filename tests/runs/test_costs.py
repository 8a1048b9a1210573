"""What a run costs: two statements for an echo, one more for each further step, and bytes that grow with the thread.

However long the thread is: of its values, a run encodes those that a reader asks for.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from app.agents.port import Interrupt, RunContext, RunOutcome, Step, ToolIntent, UnresolvedCall
from app.agents.tools.port import ToolClass
from app.base.ids import new_id
from app.base.offload import BULK
from app.domain import state
from app.domain.event_id import EventId
from app.domain.messages import AIMessage, ToolCall, ToolMessage
from app.engine.entries import ClaimedRun
from app.engine.execution import sql as execution_sql
from app.engine.queue import sql
from app.engine.structs import CommandBody, RunRequest
from app.infra.db.engine import Database
from tests.runs.engine import Engine, SteeredAgent, echo, engine_on, fetch, step
from tests.statements import sent_by


def named(statements: Iterable[str]) -> list[str]:
    names = {sql.ACCEPT.text: "accept", execution_sql.COMMIT: "commit"}
    return [names.get(statement, statement) for statement in statements]


async def test_an_echo_takes_two_statements(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine, sent_by(database) as sent:
        await engine.result(await engine.begin("warm"))
        sent.clear()
        live = engine.supervisor.launch(await engine.accept("hello"))
        live.awaited = True
        await live.done
    assert named(sent) == ["accept", "commit"]


async def three_steps(context: RunContext) -> RunOutcome:
    """Commit three steps, then end."""
    for _ in range(3):
        await context.commit(step("thinking", following=("agent",)))
    return RunOutcome(step=step("done"))


async def test_each_further_step_takes_one_more(database: Database) -> None:
    async with engine_on(database, SteeredAgent("steered", three_steps)) as engine, sent_by(database) as sent:
        await engine.result(await engine.begin("warm", agent="steered"))
        sent.clear()
        live = engine.supervisor.launch(await engine.accept("hello", agent="steered"))
        live.awaited = True
        await live.done
    assert named(sent) == ["accept", *["commit"] * 4]


async def test_the_next_run_in_this_process_loads_nothing(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine, sent_by(database) as sent:
        first = await engine.begin("one")
        await engine.result(first)
        sent.clear()
        live = engine.supervisor.launch(await engine.accept("two", thread=first.thread_id))
        live.awaited = True
        await live.done
    assert named(sent) == ["accept", "commit"]


class Encoded:
    """Counts how often values are encoded, and the calls offloaded to a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.views = self.threads = 0
        pieces, to_thread = state.StateView.pieces, asyncio.to_thread

        def counted(view: state.StateView) -> list[bytes]:
            self.views += 1
            return pieces(view)

        async def in_thread(*args: Any, **named: Any) -> Any:
            self.threads += 1
            return await to_thread(*args, **named)

        monkeypatch.setattr(state.StateView, "pieces", counted)
        monkeypatch.setattr(asyncio, "to_thread", in_thread)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    return Encoded(monkeypatch)


async def on_a_large_thread(engine: Engine, **changes: Any) -> ClaimedRun:
    """Start a run on a thread with values of more than ``BULK`` bytes."""
    first = await engine.begin("x" * (BULK + 1))
    await engine.stream(first, modes=set())
    return await engine.accept("hello", thread=first.thread_id, **changes)


@pytest.mark.parametrize("mode", ["values", "updates", "messages-tuple", "tasks", "debug", "events"])
async def test_an_echo_on_a_large_thread_costs_what_it_costs_on_a_small_one(
    database: Database, encoded: Encoded, mode: str
) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine, sent_by(database) as sent:
        run = await on_a_large_thread(engine, modes=[mode])
        sent.clear()
        encoded.threads = 0
        live = engine.supervisor.launch(run)
        stream = await engine.stream(run, modes=set())
        await live.done
    assert b"event: end" in stream
    assert named(sent) == ["commit"]
    assert (encoded.views, encoded.threads) == (0, 0)


async def test_values_are_encoded_once_for_all_subscribers(database: Database, encoded: Encoded) -> None:
    """Two frames: after the input, and in the end."""
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        run = await on_a_large_thread(engine, modes=["values", "updates"])
        encoded.views = 0
        engine.supervisor.launch(run)
        streams = await asyncio.gather(*(engine.stream(run) for _ in range(5)))
    assert streams[0].count(b"event: values") == 2
    assert set(streams) == {streams[0]}
    assert encoded.views == 2


async def test_a_replay_reads_only_the_values_that_its_client_wants(database: Database) -> None:
    async with engine_on(database, SteeredAgent("steered", three_steps)) as engine:
        run = await engine.begin("x", agent="steered", modes=["values", "updates", "tasks"])
        whole = await engine.stream(run)
    ids = [line.partition(b": ")[2].decode() for line in whole.split(b"\r\n") if line.startswith(b"id: ")]
    async with engine_on(database, SteeredAgent("steered", three_steps)) as other, sent_by(database) as sent:
        assert await other.stream(run) == whole
        of_all = sum("checkpoint_items" in statement for statement in sent)
        sent.clear()
        assert b"event: updates" in await other.stream(run, modes={"updates"})
        of_updates = sum("checkpoint_items" in statement for statement in sent)
        sent.clear()
        last = ids[-3].split("-")
        assert whole.endswith(await other.stream(run, after=EventId(int(last[0]), int(last[1]))))
        of_the_end = sum("checkpoint_items" in statement for statement in sent)
    assert (of_all, of_updates) == (5, 0)
    assert of_the_end <= 1


def unsafe(call_id: str) -> ToolIntent:
    return ToolIntent(call_id=call_id, tool="pay", tool_class=ToolClass.UNSAFE, key=f"key of {call_id}", args=b"{}")


def asks(call_id: str) -> Step:
    """A step whose message asks for a call, which then may start."""
    message = AIMessage(content="", id=f"of {call_id}", tool_calls=[ToolCall(name="pay", args={}, id=call_id)])
    return Step(node="agent", update={"messages": [message]}, next=("agent",), intents=(unsafe(call_id),))


async def test_a_resume_reads_only_open_calls(database: Database) -> None:
    unresolved: list[dict[str, list[UnresolvedCall]]] = []

    async def pays(context: RunContext) -> RunOutcome:
        unresolved.append(context.unresolved_calls)
        await context.commit(asks(f"call {context.run_id}"))
        answer = ToolMessage(content="paid", id=f"answer {context.run_id}", tool_call_id=f"call {context.run_id}")
        await context.commit(Step(node="agent", update={"messages": [answer]}, next=("agent",)))
        if len(unresolved) < 5:
            return RunOutcome(step=step("done"))
        await context.commit(asks("open"))
        return RunOutcome(interrupts=(Interrupt("review", "was it paid?", "review", "open"),))

    async with engine_on(database, SteeredAgent("steered", pays)) as engine:
        run = await engine.begin("x", agent="steered")
        await engine.result(run)
        for _ in range(4):
            last = await engine.begin("x", agent="steered", thread=run.thread_id)
            assert ("__interrupt__" in await engine.result(last)) == (len(unresolved) == 5)
        resume = RunRequest(command=CommandBody(resume="retry"), answers={"review": "retry"})
        request = msgspec.json.encode(resume)
        again = await engine.begin(agent="steered", thread=run.thread_id, request=request)
        await engine.result(again)
        edit = RunRequest(input=["x"], answers={"review": "retry"})
        await engine.result(
            await engine.begin(agent="steered", thread=run.thread_id, request=msgspec.json.encode(edit))
        )
    assert [set(seen) for seen in unresolved[:5]] == [set()] * 5
    assert set(unresolved[5]) == {"open"}
    assert len(unresolved[6]) > 5  # its input may open any of them again


async def test_the_storage_of_a_thread_grows_linearly_with_its_runs(database: Database) -> None:
    sizes: list[int] = []
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        run = await engine.begin("x")
        await engine.result(run)
        for turn in range(2, 41):
            await engine.result(await engine.begin("x", thread=run.thread_id))
            if turn in {20, 40}:
                (row,) = await fetch(
                    database,
                    "select (select sum(length(body)) from checkpoint_items)"
                    " + (select sum(length(head)) from checkpoints) as bytes",
                )
                sizes.append(int(row["bytes"]))
        (row,) = await fetch(database, "select sum(length(body)) as bytes from checkpoint_items")
    assert sizes[1] < 2.1 * sizes[0]
    assert sizes[1] < 1.5 * int(row["bytes"])


@pytest.mark.parametrize("statement", [sql.ACCEPT.text, execution_sql.COMMIT], ids=["accept", "commit"])
async def test_the_hot_statements_find_their_rows_by_primary_key_even_on_empty_tables(
    database: Database, statement: str
) -> None:
    async with database.engine_connection() as connection:
        prepared = await connection.prepare(statement)
        values: list[Any] = [[] for _ in prepared.get_parameters()]
        if statement == sql.ACCEPT.text:
            values[-1] = 30.0
        rows = await connection.fetch(f"explain (costs off) {statement}", *values)
    lines = [row[0].strip() for row in rows]
    tables = (" on threads", " on runs")
    of_rows = [
        (line, lines[n + 1]) for n, line in enumerate(lines) if "Scan" in line and any(t in line for t in tables)
    ]
    assert of_rows
    for scan, condition in of_rows:
        assert condition.startswith("Index Cond:"), scan
        assert "thread_id" in condition or "run_id" in condition, (scan, condition)


@pytest.mark.parametrize("statement", [sql.CLAIM_SUSPECT, sql.RESERVE_SUSPECT], ids=["claim", "reserve"])
async def test_suspects_are_found_without_scanning_every_queued_run(
    engine: Engine, database: Database, statement: str
) -> None:
    waiting = await engine.accept("x", delay=600.0)
    await fetch(
        database,
        "insert into runs select (jsonb_populate_record(r, jsonb_build_object('run_id', gen_random_uuid()))).*"
        " from runs r, generate_series(1, 5000) where r.run_id = $1",
        waiting.run_id,
    )
    await fetch(database, "analyze runs")
    given = {sql.CLAIM_SUSPECT: (new_id(), 30.0, 3, 5.0, 8), sql.RESERVE_SUSPECT: (30.0, 5.0)}[statement]
    async with database.engine_connection() as connection, connection.transaction():
        rows = await connection.fetch(f"explain (analyze, costs off, timing off) {statement}", *given)
    filtered = [int(row[0].rpartition(" ")[2]) for row in rows if "Rows Removed by" in row[0]]
    assert sum(filtered) < 100, "\n".join(row[0] for row in rows)
    assert any("runs_suspect_idx" in row[0] for row in rows)
