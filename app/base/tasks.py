"""Owned tasks: every background task has an owner that keeps it running, learns of its failure and ends it.

Two kinds. ``Tasks.start`` runs something once. ``Tasks.supervise`` and ``Tasks.repeat`` run what must go on as long as
the owner is open: however such a task ends (any exception, a plain return, a cancellation that its owner did not ask
for), it is started again after a back-off. Nothing that it calls has to catch an error only in order to stay alive.

Tasks made while a ``TaskWatchdog`` collects are known to it by name. Those that are ``essential`` decide whether the
process is alive (see ``TaskWatchdog``); all others are restarted for ever and decide nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog

from app.base.containment import containing, location_of, root_of, stack_of
from app.base.errors import Unavailable

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

RETRY_SECONDS = 1.0
"""After this time a task that goes on is cancelled again."""

FIRST_BACK_OFF = 0.1
MAX_BACK_OFF = 5.0
"""Seconds before a task that ended is started again: twice as long each time, until it makes progress."""

STALL_SECONDS = 90.0
"""A task that makes no progress for so long is stalled: longer than any statement or connection attempt may take."""

MAX_FAILURES = 8
FAILING_SECONDS = 15.0
"""Failures in a row, over so long and all while the database answers, after which the process gives up."""

LOOK_SECONDS = 1.0
PAUSED_SECONDS = 5.0
"""A look that comes so late shows that the whole process was paused, and says nothing about its tasks."""

PROBE_SECONDS = 3.0


async def to_the_end(work: Coroutine[Any, Any, Value]) -> Value:
    """Run ``work`` to its end even when the caller is cancelled meanwhile; the cancellation follows it."""
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


def run_through(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Value]) -> Value:
    """Run ``loop`` until ``work`` has ended, whatever other tasks and callbacks raise meanwhile.

    ``KeyboardInterrupt`` and ``SystemExit`` stop a loop wherever they are raised; they are no one's word that this
    process shall end, so it goes on. Who awaits the task that raised them gets them.
    """
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit) as error:
            if task.done():
                raise
            log.warning("event_loop_goes_on", error=type(error).__name__, at=location_of(error))


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run ``works`` at the same time until all have ended; when one fails, or the caller is cancelled, end them all.

    They bear the name of the caller's task, which tells the run that a task belongs to. Raises what one of them
    raised, be it an ``Exception`` or not; a group where several have failed.
    """
    task = asyncio.current_task()
    name = None if task is None else task.get_name()
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(containing(work), name=name)
    except BaseExceptionGroup as error:
        raise root_of(error) from None


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until ``event`` is set, for up to ``seconds``; whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class SupervisedTask:
    """A task that is started again whenever it ends, and the evidence of its progress.

    ``failures`` counts how often in a row it ended without progress. ``moved_at`` (monotonic seconds) is when it was
    started or made progress last; ``running`` is False while it waits to be started again.
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
        self._longest = back_off
        self._attempts = 0

    @property
    def running(self) -> bool:
        """Whether its task runs now."""
        return self.task is not None

    def beat(self) -> None:
        """Record progress: one unit of work is done, or there was none to do."""
        self.moved_at = time.monotonic()
        self.failures = self._attempts = 0

    def ended(self, error: BaseException | None) -> float:
        """Record that the task has ended (None: it returned); the seconds until it is to be started again."""
        self.task = None
        if not self.failures:
            self.failing_since = time.monotonic()
        self.failures += 1
        self._attempts += 1
        self.error = "returned" if error is None else type(error).__name__
        return float(min(FIRST_BACK_OFF * 2 ** min(self._attempts - 1, 16), self._longest))


Heartbeat = Callable[[], None]


class Tasks:
    """A set of tasks with one owner.

    Unlike ``asyncio.TaskGroup`` a failing task does not end its siblings: the failure is logged with the task's name
    (callers that need the result keep the task that ``start`` returns). ``aclose`` cancels what still runs and waits.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervised: list[SupervisedTask] = []
        self._supervision = _collecting.get()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``work`` once, as a task named ``name``, until it ends or the owner closes."""
        task = asyncio.create_task(work, name=f"{self.name}.{name}")
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
        """Run ``work``, which is not meant to end, and start it again whenever it does, until the owner closes.

        ``work`` is given a function to call for each unit of work done. One that is not called for ``stall_seconds``
        shows that the task is stalled: whatever waits for an event wakes up now and then to call it. ``back_off``
        bounds the seconds between an end and the next start. What ``essential`` means says ``TaskWatchdog``.
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
        """Call ``work`` again and again, ``seconds`` after it ended, until the owner closes.

        A call that fails is logged, and made again after a back-off. Each call that ends well counts as progress, so
        none may wait for an event without a time limit (``wait_for``).
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

        supervised.moved_at = time.monotonic()
        supervised.task = task = asyncio.create_task(run(), name=supervised.name)
        self._tasks.add(task)
        # a callback, so that no error and no cancellation can get by it; once the loop stops, it starts nothing
        task.add_done_callback(lambda _: self._start_again(supervised, work, task))

    def _start_again(
        self, supervised: SupervisedTask, work: Callable[[Heartbeat], Awaitable[object]], task: "asyncio.Task[Any]"
    ) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if supervised.closed:
            return
        wait = supervised.ended(error)
        if isinstance(error, Unavailable | OSError):  # TimeoutError among them: no traceback tells more
            log.warning("task_restarts", task=supervised.name, error=supervised.error, reason=str(error), again_in=wait)
        else:
            log.error("task_restarts", task=supervised.name, error=supervised.error, again_in=wait, exc_info=error)
        task.get_loop().call_later(wait, self._run, supervised, work)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all tasks to end by themselves; whether they did."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(set(self._tasks), timeout=timeout)
        return not pending

    def release(self, task: asyncio.Task[Any]) -> None:
        """Leave ``task`` to itself: the owner neither waits for it nor cancels it any more."""
        self._tasks.discard(task)

    async def aclose(self) -> None:
        """Cancel the tasks that still run and wait until they have ended."""
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


async def _always() -> bool:
    return True


def _log_only(reason: str) -> None:
    log.error("nothing_ends_this_process", reason=reason)


class TaskWatchdog:
    """Watches the essential tasks of one process, and gives up where a new process is the only remedy.

    It gives up when an essential task stalls, or fails again and again (``MAX_FAILURES`` in a row, for at least
    ``FAILING_SECONDS``), **while the database answers a fresh connection**: as long as the database is away all tasks
    try again for ever, and nothing is held against them. Giving up sets ``trouble`` (the process is not live any more)
    and calls ``on_give_up`` once with a sentence; what that does is up to the server: a worker drains and ends, and
    its parent replaces it.

    ``database_answers`` opens a connection of its own, and may raise. Set both callbacks before ``start``.
    """

    def __init__(self, database_answers: Callable[[], Awaitable[bool]] = _always) -> None:
        self.database_answers = database_answers
        self.on_give_up: Callable[[str], None] = _log_only
        self.trouble = ""
        """Why this process is not live; empty while it is."""
        self._supervised: dict[SupervisedTask, None] = {}
        self._looked = time.monotonic()
        self._tasks = Tasks("supervision")

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """A block in which every ``Tasks`` that is made belongs to this process."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def add(self, supervised: SupervisedTask) -> None:
        """Watch ``supervised``."""
        self._supervised[supervised] = None

    def discard(self, supervised: SupervisedTask) -> None:
        """Watch ``supervised`` no more: its owner closes."""
        self._supervised.pop(supervised, None)

    def names(self, *, essential: bool) -> list[str]:
        """The tasks that run now, by name: the essential ones, or the others."""
        return sorted(supervised.name for supervised in self._supervised if supervised.essential is essential)

    def start(self) -> None:
        """Begin to watch."""
        self._looked = time.monotonic()
        self._tasks.repeat(self.check_tasks, LOOK_SECONDS, name="look")

    async def aclose(self) -> None:
        """Watch no more."""
        await self._tasks.aclose()

    async def check_tasks(self) -> None:
        """Judge every essential task once, now."""
        now, essential = time.monotonic(), [supervised for supervised in self._supervised if supervised.essential]
        paused, self._looked = now - self._looked > PAUSED_SECONDS, now
        if paused:
            for supervised in essential:
                supervised.moved_at = now
        suspects = [supervised for supervised in essential if supervised.failures or _stalled(supervised, now)]
        if self.trouble or not suspects:
            return
        if not await self._database_answers():
            for supervised in suspects:  # what happened so far, the missing database explains
                supervised.failures, supervised.moved_at = 0, time.monotonic()
            return
        for supervised in suspects:
            if supervised.failures >= MAX_FAILURES and now - supervised.failing_since >= FAILING_SECONDS:
                self._give_up(
                    f"The task {supervised.name} failed {supervised.failures} times in a row ({supervised.error})."
                )
                return
            if supervised.task is not None and _stalled(supervised, now):
                log.error("task_stalled", task=supervised.name, at=stack_of(supervised.task))
                self._give_up(f"The task {supervised.name} has made no progress for {now - supervised.moved_at:.0f} s.")
                return

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await self.database_answers()
        except Exception as error:  # noqa: BLE001  however it fails: it does not answer
            log.debug("database_does_not_answer", error=type(error).__name__)
            return False
        finally:
            self._looked = time.monotonic()

    def _give_up(self, reason: str) -> None:
        self.trouble = reason
        log.error("process_gives_up", reason=reason)
        self.on_give_up(reason)


_collecting: ContextVar[TaskWatchdog | None] = ContextVar("supervision", default=None)


def _stalled(supervised: SupervisedTask, now: float) -> bool:
    return supervised.running and now - supervised.moved_at > supervised.stall_seconds
