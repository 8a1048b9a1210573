"""Background tasks have an owner."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from app.base.tasks import Tasks, run_concurrently, run_to_completion, run_until_done


async def test_a_repeated_call_continues_after_a_failure() -> None:
    tasks = Tasks("test")
    calls = 0
    enough = asyncio.Event()

    async def fail() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise RuntimeError("again")

    tasks.repeat(fail, 0, name="failing")
    await asyncio.wait_for(enough.wait(), 10)
    await tasks.aclose()
    assert len(tasks) == 0


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.base.tasks.RETRY_SECONDS", 0.01)
    tasks = Tasks("test")
    cancelled = 0

    async def swallow() -> None:
        nonlocal cancelled
        while cancelled < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1

    tasks.start(swallow(), name="swallowing")
    await asyncio.sleep(0)
    await tasks.aclose()
    assert cancelled == 3


async def test_run_to_completion_waits_however_often_its_caller_is_cancelled() -> None:
    may, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may.wait()
        ended.set()

    caller = asyncio.ensure_future(run_to_completion(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    may.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_event_loop_continues_whatever_its_tasks_and_callbacks_raise(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def raising(error: type[BaseException]) -> None:
        raise error

    def call() -> None:
        raise SystemExit

    async def work() -> str:
        with pytest.raises(KeyboardInterrupt):
            await asyncio.gather(asyncio.Event().wait(), raising(KeyboardInterrupt))
        called = asyncio.Event()
        for callback in (call, called.set):
            asyncio.get_running_loop().call_soon(callback)
        await called.wait()
        return "done"

    with asyncio.Runner(loop_factory=factory) as runner:
        assert run_until_done(runner.get_loop(), work()) == "done"


async def test_run_concurrently_raises_the_original_error_and_cancels_siblings() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def stop() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await run_concurrently(wait(), stop())
    assert ended.is_set()
