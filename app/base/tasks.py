"""Owned background tasks: each has an owner that restarts it, logs its failure and cancels it on close.

``Tasks.start`` runs something once. ``Tasks.supervise`` and ``Tasks.repeat`` run what must continue while the owner is
open: however such a task ends (any exception, a plain return, an unrequested cancellation), it is restarted with
backoff, so that its code need not catch errors only to stay alive.

Tasks created while a ``TaskWatchdog`` collects are known to it by name. Those that are ``essential`` decide whether the
process is live (see ``TaskWatchdog``); all others are restarted forever.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import structlog

from app.base.containment import contain, kind_of, location_of, root_of, stack_of, text_of
from app.base.errors import Unavailable

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

RETRY_SECONDS = 1.0
"""Seconds after which a task that ignores its cancellation is cancelled again."""

FIRST_BACK_OFF = 0.1
MAX_BACK_OFF = 5.0
"""Backoff in seconds before a task is restarted: doubled each time until it makes progress."""

STALL_SECONDS = 90.0
"""A task without progress for so long is stalled: longer than any statement or connection attempt may take."""

MAX_FAILURES = 8
FAILING_SECONDS = 15.0
"""Consecutive failures, over so many seconds and all while the database answers, before the process gives up."""

CHECK_SECONDS = 1.0
PAUSED_SECONDS = 5.0
"""A check this late shows that the whole process was paused, and says nothing about its tasks."""

PROBE_SECONDS = 3.0


async def run_to_completion(work: Coroutine[Any, Any, Value]) -> Value:
    """Run ``work`` to completion even if the caller is cancelled; the cancellation is raised afterwards."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("task_failed_after_cancel", task=task.get_name(), error=type(error).__name__)
        raise


def run_until_done(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Value]) -> Value:
    """Run ``loop`` until ``work`` has ended, whatever other tasks and callbacks raise.

    ``KeyboardInterrupt`` and ``SystemExit`` stop a loop wherever they are raised. They do not mean that this process
    shall end, so the loop resumes; awaiting the task that raised them raises them.
    """
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit) as error:
            if task.done():
                raise
            log.warning("event_loop_resumed", error=type(error).__name__, at=location_of(error))


async def run_concurrently(*works: Coroutine[Any, Any, None]) -> None:
    """Run ``works`` concurrently until all have ended; cancel them all if one fails or the caller is cancelled.

    Their tasks bear the name of the caller's task, which identifies the run. Raises what one of them raised,
    ``Exception`` or not; an exception group if several failed.
    """
    task = asyncio.current_task()
    name = None if task is None else task.get_name()
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(contain(work), name=name)
    except BaseExceptionGroup as error:
        raise root_of(error) from None


class SupervisedTask:
    """A task that is restarted whenever it ends, and the evidence of its progress.

    ``failures``: how often in a row it ended without progress. ``moved_at`` (monotonic seconds): when it was started or
    last made progress. ``running`` is False during backoff.
    """

    def __init__(self, name: str, *, essential: bool, stall_seconds: float, back_off: float) -> None:
        self.name = name
        self.essential = essential
        self.stall_seconds = stall_seconds
        self.moved_at = time.monotonic()
        self.failures = 0
        self.failing_since = 0.0
        self.error = ""
        self.task: asyncio.Task[Any] | None = None
        self.closed = False
        self._max_back_off = back_off
        self._attempts = 0

    @property
    def running(self) -> bool:
        """Whether its task runs now."""
        return self.task is not None

    def stalled(self, now: float) -> bool:
        """Whether it has made no progress for too long; one that does not run should have been restarted by now."""
        allowed = self.stall_seconds if self.running else self.stall_seconds + self._max_back_off
        return now - self.moved_at > allowed

    def beat(self) -> None:
        """Record progress: a unit of work was done, or there was none to do."""
        self.moved_at = time.monotonic()
        self.failures = self._attempts = 0

    def ended(self, error: BaseException | None) -> float:
        """Record that the task has ended (None: it returned); return the backoff in seconds."""
        self.task = None
        if not self.failures:
            self.failing_since = time.monotonic()
        self.failures += 1
        self._attempts += 1
        self.error = "returned" if error is None else kind_of(error)
        return float(min(FIRST_BACK_OFF * 2 ** min(self._attempts - 1, 16), self._max_back_off))


Heartbeat = Callable[[], None]


class Tasks:
    """A set of tasks with one owner.

    Unlike in ``asyncio.TaskGroup`` a failing task does not cancel its siblings: the failure is logged with the task's
    name (callers that need the result keep the task that ``start`` returns). ``aclose`` cancels the rest and waits.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervised: list[SupervisedTask] = []
        self._supervision = _collecting.get()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``work`` once, as a task named ``name``, until it ends or the owner closes."""
        try:
            task = asyncio.create_task(work, name=f"{self.name}.{name}")
        except BaseException:
            work.close()
            raise
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def supervise(
        self,
        work: Callable[[Heartbeat], Awaitable[object]],
        *,
        name: str,
        essential: bool = False,
        stall_seconds: float = STALL_SECONDS,
        back_off: float = MAX_BACK_OFF,
    ) -> None:
        """Run ``work``, which is not meant to end, and restart it whenever it does, until the owner closes.

        ``work`` gets a function to call for each unit of work done. If it is not called for ``stall_seconds``, the task
        counts as stalled; code that waits for an event wakes up periodically to call it. ``back_off``: maximum seconds
        before a restart. ``essential``: see ``TaskWatchdog``.
        """
        supervised = SupervisedTask(
            f"{self.name}.{name}", essential=essential, stall_seconds=stall_seconds, back_off=back_off
        )
        self._supervised.append(supervised)
        if self._supervision is not None:
            self._supervision.add(supervised)
        self._run(supervised, work)

    def repeat(
        self,
        work: Callable[[], Awaitable[object]],
        seconds: float,
        *,
        name: str,
        essential: bool = False,
        back_off: float = MAX_BACK_OFF,
    ) -> None:
        """Call ``work`` repeatedly, ``seconds`` after it ended, until the owner closes.

        A failed call is logged and retried with backoff. Each successful call counts as progress, so none may wait for
        an event without a timeout (``app.base.wakeup``).
        """

        async def calls(beat: Heartbeat) -> None:
            while True:
                await work()
                beat()
                await asyncio.sleep(seconds)

        self.supervise(calls, name=name, essential=essential, stall_seconds=STALL_SECONDS + seconds, back_off=back_off)

    def _run(self, supervised: SupervisedTask, work: Callable[[Heartbeat], Awaitable[object]]) -> None:
        if supervised.closed:
            return

        async def run() -> None:
            await work(supervised.beat)

        started = run()
        try:
            task = asyncio.create_task(started, name=supervised.name)
        except BaseException as error:  # noqa: BLE001  memory is short, or the loop makes no tasks: both may pass
            started.close()
            self._run_again(supervised, work, error)
            return
        supervised.moved_at = time.monotonic()
        supervised.task = task
        self._tasks.add(task)
        # a callback sees every error and cancellation; once the loop stops, it starts nothing
        task.add_done_callback(lambda _: self._restart(supervised, work, task))

    def _restart(
        self, supervised: SupervisedTask, work: Callable[[Heartbeat], Awaitable[object]], task: "asyncio.Task[Any]"
    ) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not supervised.closed:
            self._run_again(supervised, work, error)

    def _run_again(
        self,
        supervised: SupervisedTask,
        work: Callable[[Heartbeat], Awaitable[object]],
        error: BaseException | None,
    ) -> None:
        wait = supervised.ended(error)
        asyncio.get_running_loop().call_later(wait, self._run, supervised, work)
        _log_restart(supervised, error, wait)  # at last: even if that fails, the task runs again

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all tasks to end; return whether they did."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(set(self._tasks), timeout=timeout)
        return not pending

    def release(self, task: asyncio.Task[Any]) -> None:
        """Disown ``task``: the owner neither waits for it nor cancels it any more."""
        self._tasks.discard(task)

    async def aclose(self) -> None:
        """Cancel the remaining tasks and wait until they have ended."""
        for supervised in self._supervised:
            supervised.closed = True
            if self._supervision is not None:
                self._supervision.discard(supervised)
        self._supervised.clear()
        tasks = set(self._tasks)
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=RETRY_SECONDS)  # a library may have swallowed the first


def _log_restart(supervised: SupervisedTask, error: BaseException | None, wait: float) -> None:
    line: dict[str, Any] = {"task": supervised.name, "error": supervised.error, "again_in": wait}
    if issubclass(type(error), Unavailable | OSError):  # includes TimeoutError; a traceback would add nothing
        log.warning("task_restarts", reason=text_of(cast("Exception", error)), **line)
    else:
        log.error("task_restarts", exc_info=error, **line)


async def _always() -> bool:
    return True


def _log_only(reason: str) -> None:
    log.error("nothing_ends_this_process", reason=reason)


class TaskWatchdog:
    """Watches the essential tasks of one process, and gives up if only a new process can help.

    It gives up when an essential task stalls or keeps failing (``MAX_FAILURES`` in a row, over at least
    ``FAILING_SECONDS``), **while the database answers on a new connection**: during a database outage all tasks retry
    forever and no failure counts. Giving up sets ``trouble`` (the process is not live any more) and calls
    ``on_give_up`` once with a sentence; a worker then drains and exits, and its parent replaces it.

    ``database_answers`` opens a connection of its own, and may raise. Set both callbacks before ``start``.
    """

    def __init__(self, database_answers: Callable[[], Awaitable[bool]] = _always) -> None:
        self.database_answers = database_answers
        self.on_give_up: Callable[[str], None] = _log_only
        self.trouble = ""
        """Why this process is not live; empty while it is live."""
        self._supervised: dict[SupervisedTask, None] = {}
        self._checked_at = time.monotonic()
        self._tasks = Tasks("supervision")

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Register every ``Tasks`` created within the block."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def add(self, supervised: SupervisedTask) -> None:
        """Watch ``supervised``."""
        self._supervised[supervised] = None

    def discard(self, supervised: SupervisedTask) -> None:
        """Stop watching ``supervised``, as its owner closes."""
        self._supervised.pop(supervised, None)

    def names(self, *, essential: bool) -> list[str]:
        """Return the names of the essential tasks, or of the others."""
        return sorted(supervised.name for supervised in self._supervised if supervised.essential is essential)

    def start(self) -> None:
        """Start watching."""
        self._checked_at = time.monotonic()
        self._task_factory = asyncio.get_running_loop().get_task_factory()
        self._tasks.repeat(self.check_tasks, CHECK_SECONDS, name="check")

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()

    async def check_tasks(self) -> None:
        """Check every essential task once, and that the loop makes tasks as it did."""
        self._restore_task_factory()
        now, essential = time.monotonic(), [supervised for supervised in self._supervised if supervised.essential]
        paused, self._checked_at = now - self._checked_at > PAUSED_SECONDS, now
        if paused:
            for supervised in essential:
                supervised.moved_at = now
        suspects = [supervised for supervised in essential if supervised.failures or supervised.stalled(now)]
        if self.trouble or not suspects:
            return
        if not await self._database_answers():
            for supervised in suspects:  # the outage explains their failures
                supervised.failures, supervised.moved_at = 0, time.monotonic()
            return
        for supervised in suspects:
            if supervised.failures >= MAX_FAILURES and now - supervised.failing_since >= FAILING_SECONDS:
                self._give_up(
                    f"The task {supervised.name} failed {supervised.failures} times in a row ({supervised.error})."
                )
                return
            if supervised.stalled(now):
                at = "" if supervised.task is None else stack_of(supervised.task)
                log.error("task_stalled", task=supervised.name, at=at)
                self._give_up(f"The task {supervised.name} has made no progress for {now - supervised.moved_at:.0f} s.")
                return

    def _restore_task_factory(self) -> None:
        """Take back a factory that an agent, or a library of its, has given the loop: everything here needs tasks."""
        loop = asyncio.get_running_loop()
        if self._tasks and loop.get_task_factory() is not self._task_factory:
            loop.set_task_factory(self._task_factory)
            log.error("task_factory_restored")

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await self.database_answers()
        except Exception as error:  # noqa: BLE001  any failure means that the database does not answer
            log.debug("database_does_not_answer", error=type(error).__name__)
            return False
        finally:
            self._checked_at = time.monotonic()

    def _give_up(self, reason: str) -> None:
        self.trouble = reason
        log.error("process_gives_up", reason=reason)
        self.on_give_up(reason)


_collecting: ContextVar[TaskWatchdog | None] = ContextVar("supervision", default=None)
