"""Frames and signals get lost and owners change during a replay; a stream still equals the replay."""

import asyncio
import re
from collections.abc import AsyncIterator

import msgspec
import pytest

from app.agents.port import RunContext, RunOutcome, Step
from app.domain.event_id import START, EventId
from app.domain.events import Custom, MessageDelta
from app.engine.entries import ClaimedRun
from app.engine.streams.frame_transport import FrameBatch
from app.features.runs.thread_streams import ThreadCursor, ThreadStreams
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, step
from tests.runs.test_processes import RecordingReader, Speaker, two


def lose(batch: FrameBatch) -> None:
    """Replace ``FeedRegistry.receive``: lose ``chunk``."""


class Stepper:
    """An agent that commits a step each time it may, ``steps`` in all."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.may = asyncio.Semaphore(0)
        self.done = 0

    async def work(self, context: RunContext) -> RunOutcome:
        while self.done < self.steps - 1:
            await self.may.acquire()
            self.done += 1
            await context.commit(step(f"step {self.done}", following=("agent",)))
        await self.may.acquire()
        return RunOutcome(step=step("the last"))


def reading(engine: Engine, run: ClaimedRun, after: EventId = START) -> AsyncIterator[bytes]:
    return engine.streams.follow(TENANT, run.run_id, after=after, modes=None)


def ids(stream: bytes) -> list[tuple[int, int]]:
    return [(int(epoch), int(seq)) for epoch, seq in re.findall(rb"id: (\d+)-(\d+)", stream)]


async def test_commits_during_a_replay_are_not_skipped_when_the_run_moves_here(
    database: Database,
) -> None:
    """As in a rolling restart: the subscriber's process claims the run before the subscriber has read the log."""
    stepper = Stepper(4)
    agent = SteeredAgent("steered", stepper.work)
    first = Engine(database, agent)
    await first.start(sweeping=True)
    run = await first.begin("x", agent="steered", modes=["values", "updates"])
    there = RecordingReader(reading(first, run))
    stepper.may.release()
    await there.until(b"step 1")
    async with engine_on(database, agent, sweeping=True) as second:
        chunks = reading(second, run)
        whole = await anext(chunks)
        first.supervisor.live(run.run_id).execution.drain()  # type: ignore[union-attr]
        stepper.may.release()
        async with asyncio.timeout(20):
            while second.supervisor.live(run.run_id) is None:  # noqa: ASYNC110  a claim is not signalled
                await asyncio.sleep(0.01)
        for _ in range(4):
            stepper.may.release()
        async with asyncio.timeout(20):
            async for chunk in chunks:
                whole += chunk
        assert whole == await second.stream(run)
        assert b"step 2" in whole
    await first.stop()


async def test_a_step_with_lost_frames_comes_from_the_log(database: Database) -> None:
    stepper = Stepper(3)
    async with two(database, SteeredAgent("steered", stepper.work)) as (api, _):
        run = await api.begin("x", agent="steered", modes=["updates"])
        live = RecordingReader(reading(api, run))
        stepper.may.release()
        await live.until(b"step 1")
        api.parts.feeds.receive = lose  # type: ignore[method-assign]
        stepper.may.release()
        await live.until(b"step 2")
        stepper.may.release()
        assert await live.whole() == await api.stream(run)


async def test_lost_tokens_are_resent(database: Database) -> None:
    """Before their step commits, when no log holds them."""
    speaker = Speaker("one ", "two ", "three ")
    async with two(database, SteeredAgent("steered", speaker.work)) as (api, _):
        run = await api.begin("x", agent="steered", modes=["messages-tuple"])
        live = RecordingReader(reading(api, run))
        speaker.may.release()
        await live.until(b"one ")
        receive, lost = api.parts.feeds.receive, asyncio.Event()

        def lose_one(batch: FrameBatch) -> None:
            lost.set()

        api.parts.feeds.receive = lose_one  # type: ignore[method-assign]
        speaker.may.release()
        await asyncio.wait_for(lost.wait(), 10)
        api.parts.feeds.receive = receive  # type: ignore[method-assign]
        speaker.may.release()
        await live.until(b"three ")
        assert b"two " in live.text
        speaker.may.release()
        whole = await live.whole()
        assert whole == await api.stream(run)
        assert ids(whole) == [(1, n) for n in range(1, len(ids(whole)) + 1)]


async def test_a_feed_that_opened_before_its_subscriber_is_polled_too(database: Database) -> None:
    """Frames came for subscribers elsewhere, before this one requested any; then they stop."""
    speaker = Speaker("one ", "two ")
    agent = SteeredAgent("steered", speaker.work)
    async with two(database, agent) as (api, _), engine_on(database, agent, max_runs=0, sweeping=True) as other:
        run = await api.begin("x", agent="steered", modes=["messages-tuple"])
        live = RecordingReader(reading(api, run))
        speaker.may.release()
        await live.until(b"one ")
        chunks = reading(other, run, EventId(1, 1))
        with other.parts.feeds.follow(TENANT, run.run_id) as followed:
            speaker.may.release()
            await live.until(b"two ")
            async with asyncio.timeout(10):
                while not followed.feed.epoch:  # noqa: ASYNC110  unrequested frames are not signalled
                    await asyncio.sleep(0.01)
            waiting = RecordingReader(chunks)
            await waiting.until(b"two ")
            other.parts.feeds.receive = lose  # type: ignore[method-assign]
            speaker.may.release()
            assert (await waiting.whole()).count(b"event: end") == 1


async def test_frames_after_the_last_step_of_a_hand_over_are_retracted(database: Database) -> None:
    """An agent streams while its step commits; then the process drains, and the next owner streams it again."""
    said, go_on = asyncio.Event(), asyncio.Event()

    async def work(context: RunContext) -> RunOutcome:
        if context.step > 0:
            return RunOutcome(step=step("done"))

        async def speak() -> None:
            context.emit(MessageDelta(message_id=context.message_id(), node="agent", step=context.step, text="early "))
            said.set()

        await go_on.wait()
        speaking = asyncio.ensure_future(speak())
        try:
            await context.commit(step("first", following=("agent",)))
        finally:
            await speaking
        return RunOutcome(step=step("never"))

    agent = SteeredAgent("steered", work)
    leaving = Engine(database, agent)
    await leaving.start(sweeping=True)
    run = await leaving.begin("x", agent="steered", modes=["messages-tuple", "updates"])
    async with engine_on(database, agent, sweeping=True) as worker:
        live = RecordingReader(reading(worker, run))
        async with asyncio.timeout(10):
            while (owned := leaving.supervisor.live(run.run_id)) is None or owned.execution is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        owned.execution.drain()
        go_on.set()
        await asyncio.wait_for(said.wait(), 10)
        whole = await live.whole()
        replay = await worker.stream(run)
    await leaving.stop()
    assert b"early " not in replay
    assert replay.count(b"event: retracted") == 1
    assert ids(whole)[-1] == ids(replay)[-1]


async def test_a_step_rejected_by_the_database_leaves_stream_and_replay_equal(database: Database) -> None:
    async def work(context: RunContext) -> RunOutcome:
        context.emit(Custom(data=msgspec.Raw(b'"shown"')))
        await context.commit(Step(node="no\x00node", update={}))
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        run = await engine.begin("x", agent="steered", modes=["custom", "updates"])
        live = await engine.stream(run)
        assert b"shown" in live
        assert b"event: error" in live
        assert live == await engine.stream(run)
        assert ids(live) == [(1, n) for n in range(1, len(ids(live)) + 1)]


async def test_a_deleted_run_ends_its_streams_in_other_processes(database: Database) -> None:
    speaker = Speaker("one ")
    async with two(database, SteeredAgent("steered", speaker.work)) as (api, _):
        run = await api.begin("x", agent="steered", modes=["messages-tuple"])
        live = RecordingReader(reading(api, run))
        speaker.may.release()
        await live.until(b"one ")
        api.parts.feeds.receive = lose  # type: ignore[method-assign]
        await api.supervisor.cancel(TENANT, [run.run_id], "rollback")
        whole = await live.whole()
    assert re.findall(rb"event: (\w+)", whole)[-2:] == [b"error", b"end"]


async def test_the_next_run_of_a_thread_is_found_without_a_signal(database: Database) -> None:
    async with two(database, SteeredAgent("echo", echo)) as (api, worker):
        first = await api.begin("one")
        await api.result(first)
        threads = ThreadStreams(database, api.supervisor, api.streams)
        reader = RecordingReader(
            threads.follow(TENANT, first.thread_id, ThreadCursor(2, START), frozenset({"run_modes"}))
        )
        api.parts.signals._listeners.clear()
        await worker.begin("two", thread=first.thread_id)
        await reader.until(b"echo: two")


@pytest.mark.parametrize("place", [EventId(10**9, 1), EventId(1, 10**9)])
async def test_a_position_beyond_all_frames_waits_for_the_end_without_resends(
    database: Database, place: EventId
) -> None:
    speaker = Speaker("one ")
    async with engine_on(database, SteeredAgent("steered", speaker.work)) as engine:
        run = await engine.begin("x", agent="steered", modes=["messages-tuple"])
        waiting = RecordingReader(reading(engine, run, place))
        for _ in range(2):
            speaker.may.release()
        await engine.result(run)
        assert await waiting.whole() == b""
