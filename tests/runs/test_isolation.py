"""User code that raises a ``BaseException`` or does not stop costs its own run and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.agents.port import RunContext, RunOutcome
from app.base.errors import LeaseLost
from app.base.tasks import run_concurrently
from app.domain.events import MessageDelta
from app.engine.entries import JournalEntry
from app.engine.execution.journal import Journal
from app.engine.queue.claims import MAX_ATTEMPTS
from app.infra.db.engine import Database
from app.infra.telemetry.logs import hide_raised
from tests.hostile_errors import Blank, Closed, Leaving, Mute
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, fetch, step


class Odd(BaseException):
    """An exception class of user code."""


ERRORS = [KeyboardInterrupt, SystemExit, Odd, asyncio.CancelledError, GeneratorExit, Mute, Leaving, Blank, Closed]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("inside", ["the agent", "a group", "a group of two"])
async def test_any_exception_of_an_agent_ends_its_run_at_once(
    database: Database, error: type[BaseException], inside: str
) -> None:
    async def fail() -> None:
        raise error

    async def wait() -> None:
        await asyncio.Event().wait()

    async def work(_: RunContext) -> RunOutcome:
        if inside == "the agent":
            await fail()
        await run_concurrently(fail(), *([wait()] if inside == "a group of two" else []))
        return RunOutcome()

    async with engine_on(database, SteeredAgent("steered", work)) as engine:
        run = await engine.begin("x", agent="steered")
        result = await engine.result(run)
    assert result["__error__"]["error"] == error.__name__
    (row,) = await fetch(database, "select status, reason, attempts from runs")
    assert row == {"status": "error", "reason": "failed", "attempts": 1}


class Unwritable(Exception):
    """What a journal raises for an end that it cannot write."""


@pytest.mark.parametrize("failures", [2, 3 * (MAX_ATTEMPTS - 1)])
async def test_a_run_whose_end_cannot_be_written_keeps_no_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """It ends with the error, at once; if that cannot be written either, it is handed over and blamed for no crash."""
    written, left = Journal.write, failures

    async def write(journal: Journal, entry: JournalEntry) -> int:
        nonlocal left
        if entry.end is not None and left:
            left -= 1
            raise Unwritable
        return await written(journal, entry)

    async def work(_: RunContext) -> RunOutcome:
        return RunOutcome(step=step("done"))

    monkeypatch.setattr(Journal, "write", write)
    async with engine_on(database, SteeredAgent("steered", work), sweeping=True) as engine:
        run = await engine.begin("x", agent="steered")
        async with asyncio.timeout(40):
            await engine.streams.ended(TENANT, run.thread_id, run.run_id)
    (row,) = await fetch(database, "select status, reason, attempts, epoch from runs")
    if failures == 2:
        assert row == {"status": "error", "reason": "failed", "attempts": 1, "epoch": 1}
    else:
        assert row == {"status": "success", "reason": "done", "attempts": 1, "epoch": MAX_ATTEMPTS}


async def test_the_log_has_the_class_and_location_of_an_error_but_not_its_text(database: Database) -> None:
    async def work(_: RunContext) -> RunOutcome:
        raise RuntimeError("the secret of the prompt")

    with capture_logs(processors=[hide_raised]) as lines:
        async with engine_on(database, SteeredAgent("steered", work)) as engine:
            run = await engine.begin("x", agent="steered")
            await engine.result(run)
    (line,) = [line for line in lines if line["event"] == "run_failed"]
    assert line["error"] == "RuntimeError"
    assert line["run_id"] == str(run.run_id)
    assert "test_isolation.py" in line["at"]
    assert "secret" not in str(lines)


class Stubborn:
    """An agent that swallows every cancellation until it is released, and then still tries to write and emit."""

    def __init__(self) -> None:
        self.began, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.refused = 0

    async def work(self, context: RunContext) -> RunOutcome:
        self.began.set()
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue
        context.emit(MessageDelta(message_id="m", node="agent", step=context.step, text="too late"))
        late: list[Callable[[], Any]] = [lambda: context.commit(step("late")), lambda: context.intend(())]
        for write in late:
            try:
                await write()
            except LeaseLost:
                self.refused += 1
        try:
            context.check_lease()
        except LeaseLost:
            self.refused += 1
        self.ended.set()
        return RunOutcome(step=step("never"))

    async def let_go(self) -> None:
        self.may_end.set()
        async with asyncio.timeout(10):
            await self.ended.wait()
        assert self.refused == 3


def left_behind(engine: Engine) -> int:
    return sum(int(value) for _, value in engine.meters.runs_left.series.items())


async def test_a_run_ends_at_its_time_limit_even_if_its_code_swallows_cancellation(database: Database) -> None:
    stubborn = Stubborn()
    with capture_logs() as lines:
        async with engine_on(database, SteeredAgent("steered", stubborn.work, seconds=0.2)) as engine:
            run = await engine.begin("x", agent="steered", modes=["values", "messages-tuple"])
            result = await engine.result(run)
            assert result["__error__"]["error"] == "RunTimeout"
            assert engine.supervisor.active == 0
            stream = await engine.stream(run)
            await stubborn.let_go()
            assert await engine.stream(run) == stream
            assert b"event: end" in stream
            assert left_behind(engine) == 1
            assert (await engine.accept("y", agent="steered", thread=run.thread_id)).started
    (line,) = [line for line in lines if line["event"] == "run_left_behind"]
    assert (line["run_id"], line["agent"]) == (str(run.run_id), "steered")
    assert any("Stubborn.work" in place for place in line["at"])
    (row, *_) = await fetch(database, "select status, reason from runs order by created_at")
    assert row == {"status": "timeout", "reason": "deadline"}
    assert await fetch(database, "select from steps") == []


async def test_code_that_swallows_a_cancel_is_abandoned(database: Database) -> None:
    stubborn = Stubborn()
    async with engine_on(database, SteeredAgent("steered", stubborn.work), sweeping=True) as engine:
        run = await engine.begin("x", agent="steered")
        await stubborn.began.wait()
        await engine.supervisor.cancel(TENANT, [run.run_id], "interrupt")
        async with asyncio.timeout(20):
            await engine.streams.ended(TENANT, run.thread_id, run.run_id)
        async with asyncio.timeout(10):
            while engine.supervisor.active:  # noqa: ASYNC110  the row is ended before the process drops the run
                await asyncio.sleep(0.01)
        assert left_behind(engine) == 1
        await stubborn.let_go()
    (row,) = await fetch(database, "select status, reason from runs")
    assert row == {"status": "interrupted", "reason": "cancelled"}


async def test_a_drain_ends_in_time_and_a_stuck_run_resumes_elsewhere(database: Database) -> None:
    stubborn = Stubborn()
    first = Engine(database, SteeredAgent("steered", stubborn.work))
    await first.start(sweeping=True)
    run = await first.begin("x", agent="steered")
    await stubborn.began.wait()
    async with asyncio.timeout(10):
        await first.supervisor.drain(0.1)
    assert left_behind(first) == 1
    (row,) = await fetch(database, "select status, reason, attempts from runs")
    assert row == {"status": "pending", "reason": "cut", "attempts": 1}
    async with engine_on(database, SteeredAgent("steered", echo), sweeping=True) as second:
        assert (await second.result(run))["messages"][-1]["content"] == "echo: x"
        await stubborn.let_go()
    await first.parts.aclose()
