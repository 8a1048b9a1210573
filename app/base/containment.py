"""Contain exceptions of user code within its run, so that none of them ends the event loop.

``KeyboardInterrupt`` and ``SystemExit`` leave a task through the event loop and stop it; an unrequested
``CancelledError`` makes a task group lose track of its child. Both are wrapped in an ordinary exception until the run
ends.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")

MAX_FRAMES = 5


class CarriedError(Exception):
    """Wraps ``error``, a ``BaseException``, while it crosses a task boundary."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


async def contain(work: Coroutine[Any, Any, Value]) -> Value:
    """Await ``work`` and wrap exceptions that must not leave a task. Raises ``CarriedError``."""
    try:
        return await work
    except (KeyboardInterrupt, SystemExit) as error:
        raise CarriedError(error) from error
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise CarriedError(error) from error


def is_cancelled() -> bool:
    """Whether cancellation of the running task was requested; if not, its own code raised the ``CancelledError``."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def root_of(error: BaseException) -> BaseException:
    """Return the original exception: unwraps ``CarriedError`` and groups that hold a single error."""
    while True:
        if isinstance(error, CarriedError):
            error = error.error
        elif isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            return error


def location_of(error: BaseException) -> str:
    """Format the innermost frames of ``error``'s traceback without its message, which may hold a secret or a prompt."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}")
        trace = trace.tb_next
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])


def stack_of(task: "asyncio.Task[Any]") -> str:
    """Format the innermost frames of a suspended task."""
    places = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        coroutine = coroutine.cr_await
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])
