"""Background tasks have an owner."""

import asyncio

import pytest

from app.base.tasks import Tasks, to_the_end


async def test_what_is_repeated_goes_on_after_a_failure() -> None:
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
    monkeypatch.setattr("app.base.tasks.AGAIN_SECONDS", 0.01)
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


async def test_what_must_end_is_not_left_alone_however_often_its_caller_is_cancelled() -> None:
    may, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may.wait()
        ended.set()

    caller = asyncio.ensure_future(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    may.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
