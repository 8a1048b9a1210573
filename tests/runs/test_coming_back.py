"""Clients that reconnect to another process."""

import re

from app.agents.port import RunContext, RunOutcome
from app.base.ids import new_id
from app.domain.event_id import START, EventId
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, SteeredAgent, echo, engine_on, fetch, step
from tests.runs.test_processes import RecordingReader, Speaker, two


async def test_a_client_that_reconnects_mid_step_gets_nothing_twice(database: Database) -> None:
    """Its position is beyond the log of that owner, and the new process has received nothing yet."""
    speaker = Speaker("one ", "two ", "three ")

    async def two_steps(context: RunContext) -> RunOutcome:
        await context.commit(step("first"))
        return await speaker.work(context)

    async with two(database, SteeredAgent("steered", two_steps)) as (api, worker):
        run = await api.begin("x", agent="steered", modes=["messages-tuple", "values"])
        there = RecordingReader(worker.streams.follow(TENANT, run.run_id, after=START, modes=None))
        for word in (b"one ", b"two "):
            speaker.may.release()
            await there.until(word)
        last = re.findall(rb"id: (\d+)-(\d+)", there.text)[-1]
        here = RecordingReader(api.streams.follow(TENANT, run.run_id, after=EventId(*map(int, last)), modes=None))
        speaker.may.release()
        await here.until(b"three ")
        speaker.may.release()
        whole, rest = await there.whole(), await here.whole()
        ids = [tuple(map(int, one)) for one in re.findall(rb"id: (\d+)-(\d+)", rest)]
        assert ids == [(1, int(last[1]) + 1 + n) for n in range(len(ids))]
        assert whole.endswith(rest)


async def test_a_run_that_ended_without_an_owner_ends_its_streams(database: Database) -> None:
    """Poisoned after its processes died: error and end have the epoch of the owner that it never got."""
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        run = await engine.accept("x")
        for _ in range(5):
            await fetch(database, "update runs set lease_until = now() - interval '1 second'")
            await engine.claims.release_expired()
            engine.claims.owner = new_id()  # of another server
            await engine.claims.claim_suspects(5)
        whole = await engine.stream(run)
        assert re.findall(rb"event: (\w+)", whole) == [b"retracted", b"error", b"end"]
        assert b"PoisonError" in whole
        assert re.findall(rb"id: ([0-9-]+)", whole) == [b"6-1", b"6-2", b"6-3"]
        rest = [chunk async for chunk in engine.streams.follow(TENANT, run.run_id, after=EventId(6, 2), modes=None)]
        assert re.findall(rb"event: (\w+)", b"".join(rest)) == [b"end"]
        over = [chunk async for chunk in engine.streams.follow(TENANT, run.run_id, after=EventId(6, 3), modes=None)]
        assert b"".join(over) == b""
