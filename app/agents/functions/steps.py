"""Author-defined steps: work whose result is recorded, so that it runs once however often the function restarts."""

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
from app.base.containment import kind_of, text_of
from app.base.errors import AgentServiceError, StepFailed

P = ParamSpec("P")
T = TypeVar("T")

KIND = "step"
MAX_THREADS = 64
"""Concurrent sync steps in one process; more wait for a thread."""
MAX_ABANDONED_THREADS = 256
MAX_ERROR_LENGTH = 2000

_MARK = "__agent_step__"

_threads = WorkerThreads(MAX_THREADS, MAX_ABANDONED_THREADS)

running: ContextVar[FunctionSession | None] = ContextVar("session", default=None)
"""The session of the running code; None outside of runs."""


async def run_step(session: FunctionSession, name: str, work: Callable[[], Any], kind: Any) -> Any:
    """Run ``work`` once under ``name`` and return its recorded result, converted to ``kind``.

    Raises ``StepFailed`` if ``work`` raises (except for our own errors and questions to a person), ``TypeError`` if
    the result has no JSON form.
    """
    branch, at = session.enter()
    position = session.locate(at, KIND, name)
    if position.recorded is not None:
        return _replay(name, position.recorded, kind)
    session.count_step()
    with session.working():
        token = current.set(branch.inside(at))
        try:
            result = to_json(await _call(work))
        except AgentServiceError:
            raise
        except Exception as error:
            failure = RecordedFailure(kind_of(error), text_of(error)[:MAX_ERROR_LENGTH])
            session.journal.defer(position.entry(failure=failure))
            raise StepFailed(name, failure.kind, failure.words) from error
        finally:
            current.reset(token)
        await session.commit([position.entry(result)], node=name)
    return convert(msgspec.json.decode(result), kind)


@overload
def step(work: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def step(*, name: str = "") -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]: ...


def step(work: Any = None, /, *, name: str = "") -> Any:
    """Declare an async function as a step: its result is recorded under ``name``, by default the function's.

    Outside of a run it is an ordinary function. Raises ``TypeError`` if it is not async.
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


def declared_steps(function: Callable[..., Any]) -> list[str]:
    """Return the names of the steps declared in the module of ``function``."""
    found = [getattr(one, _MARK, None) for one in list(function.__globals__.values())]
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))


def returned_by(function: Callable[..., Any]) -> Any:
    """Return the annotated return type of ``function``; ``Any`` if it is missing or cannot be resolved."""
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


async def _call(work: Callable[[], Any]) -> Any:
    function = work.func if isinstance(work, functools.partial) else work
    result = work() if inspect.iscoroutinefunction(function) else await _threads.run(work)
    return await result if inspect.isawaitable(result) else result


def _replay(name: str, entry: StepRecord, kind: Any) -> Any:
    if entry.failure is not None:
        raise StepFailed(name, entry.failure.kind, entry.failure.words)
    return convert(msgspec.json.decode(entry.result), kind)
