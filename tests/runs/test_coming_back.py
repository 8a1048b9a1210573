"""Readers that come back to another process."""

import re

from app.agents.port import Outcome, RunContext
from app.bus.feed import START, EventId
from app.db.engine import Database
from tests.runs.engine import TENANT, SteeredAgent, step
from tests.runs.test_processes import Heard, Speaker, two


async def test_a_reader_that_comes_back_in_the_middle_of_a_step_hears_nothing_twice(database: Database) -> None:
    """Its place is beyond what the log has of that owner, and the process that it comes to has heard nothing yet."""
    speaker = Speaker("one ", "two ", "three ")

    async def two_steps(context: RunContext) -> Outcome:
        await context.commit(step("first"))
        return await speaker.work(context)

    async with two(database, SteeredAgent("steered", two_steps)) as (api, worker):
        run = await api.begin("x", agent="steered", modes=["messages-tuple", "values"])
        there = Heard(worker.streams.follow(TENANT, run.run_id, after=START, modes=None))
        for word in (b"one ", b"two "):
            speaker.may.release()
            await there.until(word)
        last = re.findall(rb"id: (\d+)-(\d+)", there.text)[-1]
        here = Heard(api.streams.follow(TENANT, run.run_id, after=EventId(*map(int, last)), modes=None))
        speaker.may.release()
        await here.until(b"three ")
        speaker.may.release()
        whole, rest = await there.whole(), await here.whole()
        ids = [tuple(map(int, one)) for one in re.findall(rb"id: (\d+)-(\d+)", rest)]
        assert ids == [(1, int(last[1]) + 1 + n) for n in range(len(ids))]
        assert whole.endswith(rest)
