"""Contain exceptions of user code within its run, so that none of them ends the event loop.

``KeyboardInterrupt`` and ``SystemExit`` leave a task through the event loop and stop it; an unrequested
``CancelledError`` makes a task group lose track of its child. Both are wrapped in an ordinary exception until the run
ends.

Code of a foreign class may raise wherever its exceptions are looked at: by ``str``, ``isinstance``, any attribute.
``kind_of``, ``text_of``, ``location_of`` and ``root_of`` raise nothing, and ``tamed`` makes an exception harmless.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

Value = TypeVar("Value")

MAX_FRAMES = 5


class CarriedError(Exception):
    """Wraps ``error``, a ``BaseException``, while it crosses a task boundary."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(kind_of(error))
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
    except Exception as error:
        if tamed(error) is error:
            raise
        raise CarriedError(error) from None  # a task group asks an error for its class


def is_cancelled() -> bool:
    """Whether cancellation of the running task was requested; if not, its own code raised the ``CancelledError``."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def root_of(error: BaseException) -> BaseException:
    """Return the original exception: unwraps ``CarriedError`` and groups that hold a single error."""
    while True:
        kind = type(error)  # ``isinstance`` would ask the exception for its class
        if issubclass(kind, CarriedError):
            error = cast("CarriedError", error).error
        elif issubclass(kind, BaseExceptionGroup) and len(own := _slot(error, "exceptions", BaseExceptionGroup)) == 1:
            error = own[0]
        else:
            return error


def _slot(thing: object, name: str, kind: type = BaseException) -> Any:
    """Return the attribute that the interpreter itself keeps, past the code of a subclass."""
    return vars(kind)[name].__get__(thing)


def kind_of(error: BaseException) -> str:
    """Return the name of the class of ``error``."""
    name: str = _slot(type(error), "__name__", type)
    return name


def text_of(thing: object) -> str:
    """Return the text of ``thing``, an error or what it holds; empty if it has none, or its class does not make one."""
    try:
        return str(thing)
    except BaseException:  # noqa: BLE001  the text of a foreign error is made by its own code
        return ""


def tamed(error: BaseException) -> BaseException:
    """Return ``error``, or a plain stand-in of the same name and traceback if looking at it raises."""
    trace = _slot(error, "__traceback__")
    try:
        _ = str(error), error.__traceback__, error.__cause__, error.__context__, isinstance(error, CarriedError)
    except BaseException:  # noqa: BLE001  the same
        plain: type[Exception] = type(kind_of(error), (Exception,), {})
        return plain().with_traceback(trace)
    return error


def location_of(error: BaseException) -> str:
    """Format the innermost frames of ``error``'s traceback without its message, which may hold a secret or a prompt."""
    places = []
    trace = _slot(error, "__traceback__")
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}")
        trace = trace.tb_next
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])


def stacks_of(task: "asyncio.Task[Any]") -> list[str]:
    """Format the innermost frames of all suspended tasks with the name of ``task``."""
    return [stack_of(one) for one in asyncio.all_tasks() if one.get_name() == task.get_name()]


def stack_of(task: "asyncio.Task[Any]") -> str:
    """Format the innermost frames of a suspended task."""
    places = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        coroutine = coroutine.cr_await
    return " < ".join(places[: -MAX_FRAMES - 1 : -1])
