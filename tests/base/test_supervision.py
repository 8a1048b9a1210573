"""Supervised tasks are restarted however they end, and a process that cannot continue reports it."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.base import tasks as module
from app.base.errors import Unavailable
from app.base.tasks import Heartbeat, Tasks, TaskWatchdog
from app.base.wakeup import wait_for
from tests.hostile_errors import Blank, Closed, Mute


class Database:
    """A stand-in for the probe of the database."""

    def __init__(self) -> None:
        self.up = True
        self.raises: Exception | None = None
        self.asked = 0

    async def answers(self) -> bool:
        self.asked += 1
        if self.raises is not None:
            raise self.raises
        return self.up


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACK_OFF", 0.001)
    monkeypatch.setattr(module, "FAILING_SECONDS", 0)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def given_up() -> list[str]:
    return []


@pytest.fixture
def supervision(database: Database, given_up: list[str]) -> TaskWatchdog:
    supervision = TaskWatchdog(database.answers)
    supervision.on_give_up = given_up.append
    return supervision


@pytest.fixture
def tasks(supervision: TaskWatchdog) -> Tasks:
    with supervision.collecting():
        return Tasks("test")


async def reached(tasks: Tasks, supervision: TaskWatchdog, failures: int) -> None:
    """Return once the only essential task has failed so often."""
    (kept,) = supervision._supervised
    while kept.failures < failures:  # noqa: ASYNC110  failures are not signalled
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("ending", ["error", "base", "return", "cancelled", "foreign"])
async def test_a_supervised_task_is_restarted_however_it_ends(ending: str) -> None:
    tasks, started, enough = Tasks("test"), 0, asyncio.Event()

    async def work(beat: Heartbeat) -> None:
        nonlocal started
        started += 1
        if started == 4:
            enough.set()
        if ending == "error":
            raise RuntimeError
        if ending == "base":
            raise GeneratorExit
        if ending == "cancelled":
            raise asyncio.CancelledError
        if ending == "foreign":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    tasks.supervise(work, name="ending")
    await asyncio.wait_for(enough.wait(), 10)
    await tasks.aclose()
    assert len(tasks) == 0
    before = started
    await asyncio.sleep(0.02)  # longer than any back-off here: a closed owner starts nothing
    assert started == before


@pytest.mark.parametrize("error", [Mute, Blank, Closed])
async def test_an_error_that_cannot_be_shown_costs_no_restart(error: type[Exception]) -> None:
    """Not even if the line about it cannot be written."""
    tasks, started, enough = Tasks("test"), 0, asyncio.Event()

    async def work(beat: Heartbeat) -> None:
        nonlocal started
        started += 1
        if started == 4:
            enough.set()
        raise error

    tasks.supervise(work, name="hostile", essential=True)
    await asyncio.wait_for(enough.wait(), 10)
    await tasks.aclose()


class Refusing:
    """A task factory that refuses its first tasks, as memory was short."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals

    def __call__(self, loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> "asyncio.Task[Any]":
        if self.left:
            self.left -= 1
            raise MemoryError
        return asyncio.Task(work, loop=loop, **named)


async def test_a_restart_that_fails_is_tried_again(tasks: Tasks, supervision: TaskWatchdog) -> None:
    loop, started, again = asyncio.get_running_loop(), 0, asyncio.Event()

    async def work(beat: Heartbeat) -> None:
        nonlocal started
        started += 1
        if started == 1:
            loop.set_task_factory(Refusing(3))
            raise RuntimeError
        again.set()
        await asyncio.Event().wait()

    tasks.supervise(work, name="one", essential=True)
    try:
        await asyncio.wait_for(again.wait(), 10)
    finally:
        loop.set_task_factory(None)
    (kept,) = supervision._supervised
    assert (kept.failures, kept.error) == (4, "MemoryError")
    assert kept.running
    await tasks.aclose()


async def test_an_essential_task_that_is_not_running_counts_as_stalled(
    tasks: Tasks, supervision: TaskWatchdog, given_up: list[str]
) -> None:
    async def fail() -> None:
        raise RuntimeError

    tasks.repeat(fail, 0, name="dead", essential=True, back_off=30)
    (kept,) = supervision._supervised
    kept._attempts = 100  # the next back-off is the longest
    await reached(tasks, supervision, 1)
    assert not kept.running
    kept.moved_at = time.monotonic() - kept.stall_seconds - 29
    await supervision.check_tasks()
    assert given_up == [], "its back-off is no stall"
    kept.moved_at -= 2
    await supervision.check_tasks()
    assert "test.dead has made no progress" in given_up[0]
    await tasks.aclose()


async def test_a_foreign_task_factory_is_replaced(supervision: TaskWatchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a factory that fails, or forgets its tasks, the process would answer nothing more."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.001)
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    supervision.start()
    await asyncio.sleep(0)
    loop.set_task_factory(Refusing(10**9))
    async with asyncio.timeout(10):
        while loop.get_task_factory() is not before:  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.001)
    await supervision.aclose()


def test_backoff_grows_until_there_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACK_OFF", 0.1)
    kept = module.SupervisedTask("one", essential=True, stall_seconds=1, back_off=1.0)
    assert [kept.ended(RuntimeError()) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert kept.failures == 6
    kept.beat()
    assert (kept.failures, kept.ended(None)) == (0, 0.1)


async def test_a_failing_task_ends_the_process_while_the_database_answers(
    tasks: Tasks, supervision: TaskWatchdog, given_up: list[str]
) -> None:
    async def fail() -> None:
        raise RuntimeError

    tasks.repeat(fail, 0, name="failing", essential=True, back_off=0.004)
    await supervision.check_tasks()
    assert given_up == [], "a few failures are no reason"
    await reached(tasks, supervision, module.MAX_FAILURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FAILING_SECONDS", 60)
        await supervision.check_tasks()
        assert given_up == [], "nor are many in no time"
    await supervision.check_tasks()
    await supervision.check_tasks()
    assert len(given_up) == 1, "it gives up once"
    assert "test.failing" in given_up[0]
    assert supervision.trouble == given_up[0]
    await tasks.aclose()


@pytest.mark.parametrize("how", ["answers no", "raises"])
async def test_failures_do_not_count_while_the_database_is_unavailable(
    tasks: Tasks, supervision: TaskWatchdog, database: Database, given_up: list[str], how: str
) -> None:
    database.up = how == "raises"
    database.raises = OSError() if how == "raises" else None

    async def fail() -> None:
        raise Unavailable("away")

    tasks.repeat(fail, 0, name="failing", essential=True, back_off=0.004)
    for _ in range(3):
        await reached(tasks, supervision, module.MAX_FAILURES + 1)
        await supervision.check_tasks()
        assert supervision.trouble == ""
    database.up, database.raises = True, None
    await reached(tasks, supervision, module.MAX_FAILURES)
    await supervision.check_tasks()
    assert len(given_up) == 1, "once the database is back, failures count"
    await tasks.aclose()


async def test_a_stalled_task_ends_the_process_only_while_the_database_answers(
    tasks: Tasks, supervision: TaskWatchdog, database: Database, given_up: list[str]
) -> None:
    standing = asyncio.Event()

    async def stall(beat: Heartbeat) -> None:
        standing.set()
        await asyncio.Event().wait()

    tasks.supervise(stall, name="stalling", essential=True, stall_seconds=0.01)
    await standing.wait()
    (kept,) = supervision._supervised
    database.up = False
    kept.moved_at -= 1
    await supervision.check_tasks()
    assert given_up == []
    database.up = True
    await supervision.check_tasks()
    assert given_up == [], "it begins to count when the database is back"
    kept.moved_at = time.monotonic() - 1
    with capture_logs() as lines:
        await supervision.check_tasks()
    assert "test.stalling has made no progress" in given_up[0]
    (where,) = [line["at"] for line in lines if line["event"] == "task_stalled"]
    assert "in Event.wait < " in where
    assert "<locals>.stall < " in where
    await tasks.aclose()


async def test_a_paused_process_is_not_stalled(tasks: Tasks, supervision: TaskWatchdog, given_up: list[str]) -> None:
    async def wait(beat: Heartbeat) -> None:
        await asyncio.Event().wait()

    tasks.supervise(wait, name="waiting", essential=True, stall_seconds=60)
    (kept,) = supervision._supervised
    kept.moved_at -= 1000
    supervision._checked_at -= 1000
    await supervision.check_tasks()
    assert given_up == []
    await tasks.aclose()


async def test_an_unessential_task_may_fail_without_limit(
    tasks: Tasks, supervision: TaskWatchdog, database: Database, given_up: list[str]
) -> None:
    async def fail() -> None:
        raise RuntimeError

    tasks.repeat(fail, 0, name="failing", back_off=0.004)
    await reached(tasks, supervision, module.MAX_FAILURES + 1)
    await supervision.check_tasks()
    assert (given_up, database.asked) == ([], 0)
    assert supervision.names(essential=False) == ["test.failing"]
    await tasks.aclose()
    assert supervision.names(essential=False) == []


async def test_progress_resets_the_failure_count(tasks: Tasks, supervision: TaskWatchdog) -> None:
    calls, done = 0, asyncio.Event()

    async def fail_twice() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError
        done.set()

    tasks.repeat(fail_twice, 60, name="failing", essential=True)
    await asyncio.wait_for(done.wait(), 10)
    await asyncio.sleep(0)
    (kept,) = supervision._supervised
    assert kept.failures == 0
    await tasks.aclose()


def test_a_stopping_loop_is_not_held_up_by_supervised_tasks() -> None:
    """Without a call of ``aclose`` the loop still ends: all tasks are cancelled, and none is restarted."""

    async def main() -> None:
        async def wait(beat: Heartbeat) -> None:
            await asyncio.Event().wait()

        Tasks("forgotten").supervise(wait, name="one")
        await asyncio.sleep(0)

    asyncio.run(main())


async def test_waiting_for_an_event_times_out() -> None:
    event = asyncio.Event()
    assert not await wait_for(event, 0.001)
    event.set()
    assert await wait_for(event, 10)
