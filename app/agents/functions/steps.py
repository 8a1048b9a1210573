"""Steps of the author's own: work whose result is kept, so that it is done once however often the function begins."""

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from app.agents.functions.branches import current
from app.agents.functions.conversion import convert, to_json
from app.agents.functions.session import FunctionSession
from app.agents.functions.step_journal import RecordedFailure, StepRecord
from app.agents.tools.worker_threads import WorkerThreads
from app.base.errors import AgentServiceError, StepFailed

P = ParamSpec("P")
T = TypeVar("T")

KIND = "step"
MAX_THREADS = 64
"""Sync steps that run at once in one process; more wait for a thread."""
MAX_ABANDONED_THREADS = 256
MAX_ERROR_LENGTH = 2000

_MARK = "__agent_step__"

_threads = WorkerThreads(MAX_THREADS, MAX_ABANDONED_THREADS)

running: ContextVar[FunctionSession | None] = ContextVar("session", default=None)
"""The execution that the running code belongs to."""


async def run_step(session: FunctionSession, name: str, work: Callable[[], Any], kind: Any) -> Any:
    """Do ``work`` once under ``name``; its result, as a ``kind``, then and ever after.

    Raises ``StepFailed`` for whatever ``work`` raises (but our own errors and a question to a person), ``TypeError``
    for a result that is no JSON.
    """
    branch, at = session.enter()
    place = session.locate(at, KIND, name)
    if place.was is not None:
        return _again(name, place.was, kind)
    session.count()
    with session.working():
        token = current.set(branch.inside(at))
        try:
            result = to_json(await _done(work))
        except AgentServiceError:
            raise
        except Exception as error:
            failure = RecordedFailure(type(error).__name__, str(error)[:MAX_ERROR_LENGTH])
            session.journal.later(place.entry(failure=failure))
            raise StepFailed(name, failure.kind, failure.words) from error
        finally:
            current.reset(token)
        await session.commit([place.entry(result)], node=name)
    return convert(msgspec.json.decode(result), kind)


@overload
def step(work: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def step(*, name: str = "") -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]: ...


def step(work: Any = None, /, *, name: str = "") -> Any:
    """Declare an async function as a step: what it returns is kept, under ``name`` (its own).

    Outside of a run it is the function it was. Raises ``TypeError`` for one that is not async.
    """

    def declare(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is not async: declare `async def`, or use context.step(name, function)")
        called = name or function.__name__

        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            session = running.get()
            if session is None:
                return await function(*args, **kwargs)
            work = functools.partial(function, *args, **kwargs)
            done: T = await run_step(session, called, work, returned_by(function))
            return done

        setattr(run, _MARK, called)
        return run

    return declare if work is None else declare(work)


def steps_beside(function: Callable[..., Any]) -> list[str]:
    """The names of the declared steps that ``function`` can see in its module."""
    found = [getattr(one, _MARK, None) for one in list(function.__globals__.values())]
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))


def returned_by(function: Callable[..., Any]) -> Any:
    """The type that ``function`` says it returns; ``Any`` where it says nothing that can be read."""
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


async def _done(work: Callable[[], Any]) -> Any:
    function = work.func if isinstance(work, functools.partial) else work
    result = work() if inspect.iscoroutinefunction(function) else await _threads.run(work)
    return await result if inspect.isawaitable(result) else result


def _again(name: str, entry: StepRecord, kind: Any) -> Any:
    if entry.failure is not None:
        raise StepFailed(name, entry.failure.kind, entry.failure.words)
    return convert(msgspec.json.decode(entry.result), kind)
