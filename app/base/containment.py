"""Keeps what the code of users raises within their own run: no exception of theirs ends the event loop.

``KeyboardInterrupt`` and ``SystemExit`` leave a task through the event loop and stop it; a ``CancelledError`` that no
one asked for makes a task group forget its child. Both are carried as an ordinary exception to where the run ends.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")

MAX_FRAMES = 5


class CarriedError(Exception):
    """Carries ``error``, which is no ``Exception``, out of a task."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


async def containing(work: Coroutine[Any, Any, Value]) -> Value:
    """Await ``work`` in a task of its own kind. Raises ``CarriedError`` for what must not leave a task as it is."""
    try:
        return await work
    except (KeyboardInterrupt, SystemExit) as error:
        raise CarriedError(error) from error
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise CarriedError(error) from error


def is_cancelled() -> bool:
    """Whether the running task was asked to stop; else a ``CancelledError`` is one that its code raised by itself."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def root_of(error: BaseException) -> BaseException:
    """What was raised in the first place: out of ``CarriedError``, and out of groups that hold one error alone."""
    while True:
        if isinstance(error, CarriedError):
            error = error.error
        elif isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            return error


def location_of(error: BaseException) -> str:
    """Where ``error`` was raised, innermost call first, without its text: that may repeat a secret or a prompt."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}")
        trace = trace.tb_next
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])


def stack_of(task: "asyncio.Task[Any]") -> str:
    """Where a task that waits stands, innermost call first."""
    places = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        coroutine = coroutine.cr_await
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])


def task_on(loop: asyncio.AbstractEventLoop) -> str:
    """The name of the task that runs on ``loop`` at this moment, asked from any thread; empty for none.

    Tasks of a run, and those that it starts through the engine, are called ``runs.run-`` and the run's id.
    """
    task = asyncio.current_task(loop)
    return "" if task is None else task.get_name()
