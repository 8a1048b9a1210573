"""A run that reaches its time limit while the database is slow to commit its step."""

import asyncio

import msgspec
import pytest

from app.agents.port import RunContext, RunOutcome
from app.engine import supervisor
from app.engine.entries import JournalEntry
from app.engine.structs import RunRequest
from app.infra.db.engine import Database
from tests.runs.engine import Engine, SteeredAgent, echo, engine_on, fetch, step


class SlowJournal:
    """Holds the first step back until it is released."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.release = asyncio.Event(), asyncio.Event()
        self._write = engine.parts.journal.write
        monkeypatch.setattr(engine.parts.journal, "write", self.write)

    async def write(self, entry: JournalEntry) -> int:
        if entry.steps and not self.held.is_set():
            self.held.set()
            await self.release.wait()
        return await self._write(entry)


async def one_step_and_more(context: RunContext) -> RunOutcome:
    await context.commit(step("slow", following=("agent",)))
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    "pause, status, events",
    [(None, "timeout", b"event: error"), (["agent"], "interrupted", b'"status":"interrupted"')],
    ids=["a step", "the step at which it was asked to pause"],
)
async def test_a_late_commit_leaves_the_run_with_one_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, pause: list[str] | None, status: str, events: bytes
) -> None:
    monkeypatch.setattr(supervisor, "ABANDON_SECONDS", 0.05)
    agents = SteeredAgent("steered", one_step_and_more, seconds=0.2), SteeredAgent("echo", echo)
    async with engine_on(database, *agents) as engine:
        slow = SlowJournal(engine, monkeypatch)
        request = msgspec.json.encode(RunRequest(input=["x"], interrupt_after=pause))
        run = await engine.begin(agent="steered", request=request)
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        reading = asyncio.create_task(engine.stream(run))
        await asyncio.wait_for(slow.held.wait(), 20)
        following = await engine.begin("next", thread=run.thread_id)
        async with asyncio.timeout(20):
            while not live.abandoned:  # noqa: ASYNC110  until the engine continues without its code
                await asyncio.sleep(0.01)
        slow.release.set()
        whole = await reading
        assert whole.count(b"event: end") == 1
        assert events in whole
        result = await engine.result(following)  # started by the end of the run before it, as nothing polls here
        assert [message["content"] for message in result["messages"]][-1] == "echo: next"
    rows = await fetch(database, "select status from runs order by ordinal")
    assert rows == [{"status": status}, {"status": "success"}]
