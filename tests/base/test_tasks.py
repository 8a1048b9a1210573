"""Background tasks have an owner."""

import asyncio

from app.base.tasks import Tasks


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
