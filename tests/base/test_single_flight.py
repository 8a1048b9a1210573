"""Single flight, and wake-ups of polling loops."""

import asyncio
import gc
from typing import Any

import pytest

from app.base.errors import Unavailable
from app.base.single_flight import SingleFlight
from app.base.tasks import Tasks
from app.base.wakeup import WakeUp


class Work:
    """Work that waits for ``go``, and counts its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self._error = error

    async def __call__(self) -> int:
        self.calls += 1
        self.began.set()
        await self.go.wait()
        if self._error is not None:
            raise self._error
        return self.calls


async def started(flights: SingleFlight[str, int], work: Work, tasks: Tasks, count: int) -> list[Any]:
    callers = [asyncio.ensure_future(flights.run("a", work, tasks)) for _ in range(count)]
    await work.began.wait()
    return callers


async def test_the_work_goes_on_without_the_caller_that_began_it() -> None:
    flights, work, tasks = SingleFlight[str, int](), Work(), Tasks("test")
    leader, *others = await started(flights, work, tasks, 3)
    leader.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*others) == [1, 1]
    assert (work.calls, leader.cancelled()) == (1, True)
    assert await flights.run("a", work, tasks) == 2, "nothing is cached"


async def test_a_failure_reaches_all_callers_and_is_not_joined_later(caplog: pytest.LogCaptureFixture) -> None:
    flights, work, tasks = SingleFlight[str, int](), Work(ValueError("no")), Tasks("test")
    callers = await started(flights, work, tasks, 2)
    for caller in callers:
        caller.add_done_callback(lambda _: begun.append(flights.get("a")))
    begun: list[Any] = []
    work.go.set()
    failed = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in failed] == ["no", "no"]
    assert begun == [None, None]
    flights.begin("b").set_exception(ValueError("unobserved"))
    await asyncio.sleep(0)
    gc.collect()
    assert not caplog.records, "asyncio logs an exception that was never retrieved"


async def test_callers_are_released_when_the_owner_closes() -> None:
    flights, work, tasks = SingleFlight[str, int](), Work(), Tasks("test")
    (caller,) = await started(flights, work, tasks, 1)
    await tasks.aclose()
    with pytest.raises(Unavailable):
        await caller


async def test_callers_are_released_when_the_owner_closes_before_the_work_has_begun() -> None:
    flights, work, tasks = SingleFlight[str, int](), Work(), Tasks("test")
    caller = asyncio.ensure_future(flights.run("a", work, tasks))
    await asyncio.sleep(0)
    await tasks.aclose()
    with pytest.raises(Unavailable):
        async with asyncio.timeout(5):
            await caller
    assert (work.calls, flights.get("a")) == (0, None)


async def test_a_wake_up_during_the_work_is_not_lost() -> None:
    wake = WakeUp()
    assert not await wake.wait(0.001)
    wake.set()
    assert await wake.wait(10)
    wake.set()  # while the loop works
    assert await wake.wait(10)
    assert not await wake.wait(0.001), "a wait consumes it"
