"""Several processes on one database: one executes a run, any can follow it, and it outlives them all."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from app.agents.port import RunContext, RunOutcome
from app.base.errors import LeaseLost
from app.base.ids import agent_id, new_id
from app.domain.event_id import START, EventId
from app.domain.events import MessageDelta
from app.engine.entries import ClaimedRun
from app.engine.queue import claims
from app.features.assistants.tables import assistants
from app.features.runs.thread_streams import ThreadCursor, ThreadStreams
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, fetch, step


class Speaker:
    """An agent that streams a word each time it is released."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.may = asyncio.Semaphore(0)
        self.calls = 0
        self.called = asyncio.Event()

    async def work(self, context: RunContext) -> RunOutcome:
        self.calls += 1
        self.called.set()
        message_id = context.message_id()
        for word in self.words:
            await self.may.acquire()
            context.emit(MessageDelta(message_id=message_id, node="agent", step=context.step, text=word))
        await self.may.acquire()
        return RunOutcome(step=step("".join(self.words)))


@contextlib.asynccontextmanager
async def two(database: Database, agent: SteeredAgent, lease: float = 30.0) -> AsyncIterator[tuple[Engine, Engine]]:
    """An engine that only accepts and follows, and one that executes."""
    async with (
        engine_on(database, agent, lease=lease, max_runs=0, sweeping=True) as api,
        engine_on(database, agent, lease=lease, sweeping=True) as worker,
    ):
        yield api, worker


class RecordingReader:
    """What a subscriber has received so far."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.text = b""
        self._more = asyncio.Condition()
        self._task = asyncio.ensure_future(self._read(chunks))

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            async with self._more:
                self.text += chunk
                self._more.notify_all()

    async def until(self, part: bytes) -> None:
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: part in self.text)

    async def whole(self) -> bytes:
        await asyncio.wait_for(self._task, 10)
        return self.text


def data(frame: bytes) -> Any:
    """The decoded data of one frame."""
    return msgspec.json.decode(frame.partition(b"data: ")[2].partition(b"\r\n")[0])


async def test_a_process_that_executes_nothing_leaves_a_run_to_one_that_does(database: Database) -> None:
    async with two(database, SteeredAgent("echo", echo)) as (api, _):
        run = await api.begin("hello")
        assert not run.started
        assert (await api.result(run))["messages"][-1]["content"] == "echo: hello"
    (row,) = await fetch(database, "select attempts, epoch, status from runs")
    assert row == {"attempts": 1, "epoch": 1, "status": "success"}


async def test_tokens_reach_another_process_before_their_step_commits(database: Database) -> None:
    speaker = Speaker("one ", "two ")
    async with two(database, SteeredAgent("steered", speaker.work)) as (api, worker):
        run = await api.begin("x", agent="steered", modes=["messages-tuple", "values"])
        live = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
        for word in (b"one ", b"two "):
            speaker.may.release()
            await live.until(word)
        late = RecordingReader(api.streams.follow(TENANT, run.run_id, after=EventId(1, 2), modes=None))
        await late.until(b"two ")
        speaker.may.release()
        whole = await live.whole()
        assert whole.endswith(await late.whole())
        assert whole == await worker.stream(run)
        assert whole == await api.stream(run)
    assert [line for line in whole.splitlines() if line.startswith(b"id: ")] == [b"id: 1-%d" % n for n in range(1, 7)]


async def test_a_cancel_reaches_another_process_at_once(database: Database) -> None:
    speaker = Speaker("one ")
    async with two(database, SteeredAgent("steered", speaker.work)) as (api, _):
        run = await api.begin("x", agent="steered", modes=["messages-tuple"])
        live = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
        speaker.may.release()
        await live.until(b"one ")
        await api.supervisor.cancel(TENANT, [run.run_id], "interrupt")
        async with asyncio.timeout(2):
            assert (await live.whole()).count(b"event: end") == 1
    (row,) = await fetch(database, "select status, reason from runs")
    assert row == {"status": "interrupted", "reason": "cancelled"}


async def test_the_stream_of_a_thread_follows_runs_that_start_elsewhere(database: Database) -> None:
    async with two(database, SteeredAgent("echo", echo)) as (api, _):
        first = await api.begin("one")
        await api.result(first)
        threads = ThreadStreams(database, api.supervisor, api.streams)
        follow = threads.follow(TENANT, first.thread_id, ThreadCursor(2, START), frozenset({"run_modes"}))
        reader = RecordingReader(follow)
        for ordinal in (2, 3):
            await api.begin(f"number {ordinal}", thread=first.thread_id)
            await reader.until(b"echo: number %d" % ordinal)
        assert b"id: 3.1-1" in reader.text


async def test_a_subscriber_follows_the_next_owner(database: Database) -> None:
    first, second = Speaker("half ", "done "), Speaker("half ", "done ")
    async with engine_on(database, SteeredAgent("steered", second.work), max_runs=0, sweeping=True) as api:
        lost = Engine(database, SteeredAgent("steered", first.work), max_runs=1)
        await lost.start(sweeping=True)
        run = await lost.begin("x", agent="steered", modes=["messages-tuple"])
        live = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
        first.may.release()
        await live.until(b"half ")
        await fetch(database, "update runs set lease_until = now() - interval '1 second'")
        async with engine_on(database, SteeredAgent("steered", second.work), sweeping=True) as other:
            for _ in range(3):
                second.may.release()
            whole = await live.whole()
            assert whole.endswith(await other.stream(run, after=EventId(1, 10**6)))
        await lost.stop()
    ids = [line[4:].decode() for line in whole.splitlines() if line.startswith(b"id: ")]
    assert ids == ["1-1", "1-2", *(f"2-{n}" for n in range(1, len(ids) - 1))]
    spoke = [data(frame)[0]["id"] for frame in whole.split(b"\r\n\r\n") if b"event: messages" in frame]
    (retracted,) = [data(frame) for frame in whole.split(b"\r\n\r\n") if b"event: retracted" in frame]
    assert retracted == {"message_ids": [spoke[0]], "step": 0}
    assert spoke[0] not in spoke[1:]
    assert (first.calls, second.calls) == (1, 1)


async def test_a_run_that_kills_every_process_is_poisoned(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        run = await engine.accept("x")
        for attempt in range(1, 6):
            await fetch(database, "update runs set lease_until = now() - interval '1 second'")
            assert await engine.claims.release_expired() == 1
            engine.claims.owner = new_id()  # of another server
            assert await engine.claims.claim(5) == []
            assert len(await engine.claims.claim_suspects(5)) == (attempt < 5)
        result = await engine.result(run)
    assert result["__error__"]["error"] == "PoisonError"
    (row,) = await fetch(
        database, "select r.status, reason, t.status as thread, live_run, queued from runs r, threads t"
    )
    assert row == {"status": "error", "reason": "poison", "thread": "error", "live_run": None, "queued": 0}


async def test_a_run_that_commits_steps_and_kills_its_processes_is_poisoned_too(database: Database) -> None:
    """Each step resets its attempts; its deaths are counted all the same."""
    committed = 0

    async def work(context: RunContext) -> RunOutcome:
        nonlocal committed
        await context.commit(step(f"step {context.step}", following=("agent",)))
        committed += 1
        await asyncio.Event().wait()
        raise AssertionError

    deaths = 0
    async with engine_on(database, SteeredAgent("steered", work), max_runs=0) as reader:
        run = await reader.accept("x", agent="steered", owner=None)
        while not await fetch(database, "select 1 from runs where ended_at is not null"):
            assert deaths < 40
            engine = Engine(database, SteeredAgent("steered", work))
            await engine.start()
            (claimed,) = await (engine.claims.claim_suspects(5) if deaths else engine.claims.claim(1))
            live, before = engine.supervisor.launch(claimed), committed
            async with asyncio.timeout(20):
                while committed == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                while await fetch(database, "select 1 from runs where attempts > 1"):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            live.fence()  # as if the process had died: it writes nothing more
            await fetch(database, "update runs set lease_until = now() - interval '1 second'")
            assert await engine.claims.release_expired() == 1
            deaths += 1
            await engine.stop()
        result = await reader.result(run)
    assert result["__error__"]["error"] == "PoisonError"
    assert str(deaths) in result["__error__"]["message"]
    assert (deaths, committed) == (claims.MAX_CRASHES, claims.MAX_CRASHES)


async def test_claims_are_fair_between_tenants(database: Database) -> None:
    async with engine_on(database, SteeredAgent("echo", echo), max_runs=0) as engine:
        for n in range(6):
            await engine.accept(str(n), owner=None)
        other = new_id()
        async with database.writing(other) as session:
            row = {"tenant_id": other, "assistant_id": agent_id("echo"), "graph_id": "echo", "name": "echo"}
            await session.execute(sa.insert(assistants).values(row))
        await engine.accept("late", owner=None, tenant_id=other)
        claims = await engine.claims.claim(2)
    assert {claimed.tenant_id for claimed in claims} == {TENANT, other}


async def test_a_process_that_hung_past_its_lease_writes_and_starts_nothing(database: Database) -> None:
    """As after SIGSTOP: its clock says that the lease has expired before a heartbeat can."""
    started = asyncio.Event()
    tried = asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        started.set()
        await tried.wait()
        with pytest.raises(LeaseLost):
            context.check_lease()
        with pytest.raises(LeaseLost):
            await context.commit(step("never"))
        raise LeaseLost

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        run = await engine.begin("x", agent="steered")
        await started.wait()
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        live.lease.until = 0.0
        tried.set()
        await live.done
    assert await fetch(database, "select 1 from steps") == []


async def test_without_heartbeats_a_run_stops_before_its_lease_expires(database: Database) -> None:
    stopped = asyncio.Event()

    async def work(_: RunContext) -> RunOutcome:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return RunOutcome()

    engine = Engine(database, SteeredAgent("steered", work), lease=2.0)
    await engine.start(sweeping=True)

    async def fail(run_ids: list[object]) -> dict[object, None]:
        raise TimeoutError

    engine.claims.extend = fail  # type: ignore[method-assign, assignment]
    await engine.begin("x", agent="steered")
    await asyncio.wait_for(stopped.wait(), 10)
    await engine.stop()
    (row,) = await fetch(database, "select status, reason, attempts from runs")
    assert (row["status"], row["reason"]) == ("pending", "cut")


async def test_a_hundred_remote_subscribers_cost_one_poll(database: Database) -> None:
    speaker = Speaker("word ")
    async with two(database, SteeredAgent("steered", speaker.work)) as (api, _):
        run = await api.begin("x", agent="steered", modes=["messages-tuple"])
        readers = [RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None)) for _ in range(100)]
        speaker.may.release()
        for reader in readers:
            await reader.until(b"word ")
        speaker.may.release()
        assert len({await reader.whole() for reader in readers}) == 1


async def test_runs_of_a_drained_process_are_claimed_at_once(database: Database) -> None:
    speaker = Speaker("word ")
    agent = SteeredAgent("steered", speaker.work)
    async with engine_on(database, agent, sweeping=True) as worker:
        leaving = Engine(database, agent)
        await leaving.start(sweeping=True)
        run = await leaving.begin("x", agent="steered")
        await speaker.called.wait()
        await leaving.stop()
        for _ in range(2):
            speaker.may.release()
        async with asyncio.timeout(4):  # less than the polling interval
            result = msgspec.json.decode(await worker.streams.result(TENANT, run.thread_id, run.run_id))
    assert result["messages"][-1]["content"] == "word "
    (row,) = await fetch(database, "select attempts, epoch from runs")
    assert row == {"attempts": 1, "epoch": 2}


@pytest.mark.parametrize("suspects", [False, True], ids=["ordinary runs", "a suspect"])
async def test_runs_claimed_while_draining_are_released_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, suspects: bool
) -> None:
    """The statement was executed, and its answer comes only when the process drains."""
    leaving, claimed, answered = Engine(database, SteeredAgent("echo", echo)), asyncio.Event(), asyncio.Event()
    name = "claim_suspects" if suspects else "claim"
    claim = getattr(leaving.claims, name)

    async def slow(*which: Any) -> list[ClaimedRun]:
        found: list[ClaimedRun] = await claim(*which)
        if found:
            claimed.set()
            await answered.wait()
        return found

    monkeypatch.setattr(claims, "LEFT_TO_OTHERS", 0.0)
    monkeypatch.setattr(leaving.claims, name, slow)
    async with engine_on(database, SteeredAgent("echo", echo)) as other:
        runs = [await other.accept(str(n), owner=new_id() if suspects else None) for n in range(1 if suspects else 3)]
        if suspects:
            await fetch(database, "update runs set lease_until = now() - interval '1 second'")
            assert await other.claims.release_expired() == 1
        await leaving.start(sweeping=True)
        await asyncio.wait_for(claimed.wait(), 20)
        stopping = asyncio.create_task(leaving.supervisor.drain(0))
        async with asyncio.timeout(20):
            while not leaving.supervisor.draining:  # noqa: ASYNC110
                await asyncio.sleep(0)
        answered.set()
        await stopping
        await leaving.parts.aclose()
        rows = await fetch(database, "select status, reason, attempts from runs")
        expected = ("cut", 2) if suspects else ("handover", 1)
        assert rows == [{"status": "pending", "reason": expected[0], "attempts": expected[1]}] * len(runs)
        again = await (other.claims.claim_suspects(2) if suspects else other.claims.claim(10))
        assert [(one.attempt, one.suspect) for one in again] == [(expected[1], suspects)] * len(runs)


async def test_a_process_resumed_after_its_lease_takes_no_further_step(database: Database) -> None:
    """Callbacks that became ready during the pause do not run: SIGCONT is handled first."""
    started, ready = asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    async def work(_: RunContext) -> RunOutcome:
        started.set()
        await ready.wait()
        sent.append("too late")
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", work), sweeping=True) as engine:
        run = await engine.begin("x", agent="steered")
        await started.wait()
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        ready.set()
        live.lease.until = 0.0
        os.kill(os.getpid(), signal.SIGCONT)
        await live.done
        assert sent == []
        assert live.lost
