"""The parent process: starts, monitors, replaces and stops the workers.

It imports little and has no threads, so that it stays small and can fork at any time; each worker imports the
application itself (docs/decisions/0004-server-process.md).
"""

import contextlib
import faulthandler
import io
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from app.base.errors import AgentServiceError, StartError, UsageError
from app.server.parent_log import LogFunction
from app.server.worker_context import ADOPT, RELEASE, WorkerContext, WorkerPipes, summarize_error
from app.server.worker_handle import DUMP_STACKS, WorkerHandle, WorkerMessage
from app.server.worker_renewal import CHECK_SECONDS, ReplacementPolicy

INTERRUPTED = 130
SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MAX_BACK_OFF = 30.0
MAX_READY_BACK_OFF = 1.0
"""Longest pause before the restart of a worker that was ready: runs that end their process must not keep others out."""
MIN_UPTIME = 10.0
"""Uptime in seconds below which the restart of a worker backs off exponentially."""

SPARE_NUMBERS = 4
"""Workers allowed in addition to those that serve: successors, and predecessors whose clients have not left."""

WorkerEntrypoint = Callable[[WorkerContext], int]
"""Runs a worker and returns its exit code."""


class ParentProcess:
    """Keeps one worker serving for each of ``listeners``: its slot.

    ``grace``: seconds from SIGTERM until workers are killed. ``on_ready`` is called with the facts that a ready worker
    reports, ``on_end`` with the number of one that has exited: at most ``SPARE_NUMBERS`` more than there are slots.
    ``changed`` returns the path of a changed source or an empty text: workers are then replaced, and if a successor
    fails to start, its predecessor stays until the next change. With ``reloads`` SIGHUP is forwarded to the workers,
    which reload their secrets; without it, SIGHUP shuts down. ``tend`` looks after another child process: it is called
    whenever a child has ended, and after the seconds that it returned.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], work: WorkerEntrypoint, *, grace: float, say: LogFunction
    ) -> None:
        self.on_ready: Callable[[dict[str, str]], None] = lambda _: None
        self.on_end: Callable[[int], None] = lambda _: None
        self.changed: Callable[[], str] | None = None
        self.tend: Callable[[], float] = lambda: math.inf
        self.renewal = ReplacementPolicy()
        self.reloads = False
        self._listeners = list(listeners)
        self._slots = range(1, len(self._listeners) + 1)
        self._work = work
        self._grace = grace
        self._say = say
        self._workers: dict[int, WorkerHandle] = {}  # by number
        self._due: dict[int, float] = {}  # when to start a worker, by slot
        self._back_off: dict[int, float] = {}
        self._signals: list[int] = []
        self._has_served = False
        self._tend_due = math.inf
        self._deadline = 0.0  # of the shutdown, once it has begun
        self._code = 0
        self._failure: StartError | None = None

    def run(self) -> int:
        """Serve until a signal arrives; return the exit code. Raises ``StartError`` if no worker became ready."""
        self._lifeline = os.pipe()
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        before = {number: signal.getsignal(number) for number in (*SHUTDOWN_SIGNALS, signal.SIGCHLD)}
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (*SHUTDOWN_SIGNALS, signal.SIGCHLD):
            if number != signal.SIGHUP or self.reloads or before[number] != signal.SIG_IGN:  # respect nohup(1)
                signal.signal(number, self._on_signal)
        try:
            self._due = dict.fromkeys(self._slots, 0.0)
            while self._due or self._workers:
                self._run_once()
        finally:
            self._kill_all()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (*self._lifeline, *self._wakeup):
                os.close(end)
        if self._failure is not None:
            raise self._failure
        return self._code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _run_once(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot, due in self._startable().items() if due <= now]:
            self._start(slot)
        self._sleep()
        while self._signals:
            self._handle_signal(self._signals.pop(0))
        for worker in list(self._workers.values()):
            self._read_messages(worker)
            self._reap(worker)
        if self._deadline and time.monotonic() > self._deadline:
            self._kill_all()
        elif not self._deadline:
            self._tend_due = time.monotonic() + self.tend()
        if self.changed is not None and not self._deadline and (path := self.changed()):
            self._reload(path)
        if not self._deadline:
            self._replace_unhealthy()
            self._reassign_slots()

    def _sleep(self) -> None:
        """Sleep until a worker sends a message or exits, a signal arrives, or something is due."""
        now = time.monotonic()
        poll = select.poll()
        poll.register(self._wakeup[0], select.POLLIN)
        dues = [self._deadline] if self._deadline else []
        if self._tend_due < math.inf and not self._deadline:
            dues.append(self._tend_due)
        if self._number():
            dues += self._startable().values()
        for worker in self._workers.values():
            if worker.muted_until > now:
                dues.append(worker.muted_until)
            elif worker.link_open:
                poll.register(worker.link, select.POLLIN)
        if self.changed is not None:
            dues.append(now + 0.2)
        if self.renewal.active or any(worker.leaving for worker in self._workers.values()):
            dues.append(now + CHECK_SECONDS)
        poll.poll(max(0.0, min(dues) - now) * 1000 + 1 if dues else None)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)

    def _startable(self) -> dict[int, float]:
        """Return when to start a worker, by slot, for slots where none is starting."""
        starting = {worker.slot for worker in self._workers.values() if not worker.ready}
        return {slot: due for slot, due in self._due.items() if slot not in starting}

    def _number(self) -> int:
        """Return a free worker number; 0 if all are taken."""
        numbers = range(1, len(self._listeners) + SPARE_NUMBERS + 1)
        return next((number for number in numbers if number not in self._workers), 0)

    def _start(self, slot: int) -> None:
        number = self._number()
        if not number:
            self._stop_oldest_leaving()
            return
        del self._due[slot]
        (link_out, link), (stacks, dump), (control, control_in) = os.pipe(), os.pipe(), os.pipe()
        for end in (link_out, stacks, dump, control_in):  # so that an oversized dump is truncated and blocks no process
            os.set_blocking(end, False)
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal between the fork and the child's own handlers would be lost
        signal.pthread_sigmask(signal.SIG_BLOCK, SHUTDOWN_SIGNALS)
        pid = os.fork()
        if pid == 0:
            for end in (link_out, stacks, control_in):
                os.close(end)
            signal.signal(DUMP_STACKS, signal.SIG_IGN)  # the worker later chains its own handler to the dump
            faulthandler.register(DUMP_STACKS, file=dump, all_threads=True)
            self._run_worker(number, slot, WorkerPipes(link, control, self._lifeline[0], dump))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SHUTDOWN_SIGNALS)
        for end in (link, dump, control):
            os.close(end)
        self._workers[number] = WorkerHandle(number, slot, pid, (link_out, stacks, control_in))

    def _stop_oldest_leaving(self) -> None:
        """Stop the worker that has waited longest for its clients to leave, to free a number."""
        leaving = [worker for worker in self._workers.values() if worker.leaving]
        if leaving and not any(worker.stopped for worker in leaving):
            min(leaving, key=lambda worker: worker.leaves_by).stop(self._grace)

    def _run_worker(self, number: int, slot: int, pipes: WorkerPipes) -> None:
        """Run the worker in the forked child. Never returns: the parent's cleanup must not run here."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Ctrl-C and SIGHUP reach every process of a terminal; the parent stops its workers in order
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SHUTDOWN_SIGNALS)
            for end in (self._lifeline[1], *self._wakeup):
                os.close(end)
            for other in self._workers.values():
                other.close()
            for stream in (sys.stdout, sys.stderr):  # show what agents print at once, also in a file or a pipe
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(line_buffering=True)
            code = _run_entrypoint(self._work, WorkerContext(number, slot, self._listeners, pipes, self._grace))
        finally:
            with contextlib.suppress(OSError, ValueError):  # the reader has gone away, or agents' code has closed them
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _read_messages(self, worker: WorkerHandle, *, last: bool = False) -> None:
        invalid_messages = worker.invalid_messages
        for message in worker.messages(last=last):
            self._on_message(worker, message)
        if worker.invalid_messages and not invalid_messages:
            self._say("warning", "worker_message_ignored", worker=worker.slot)

    def _on_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        if message.kind == "busy":
            worker.busy = message.text
        elif message.kind == "alive":
            worker.last_beat = time.monotonic()
        elif message.kind == "leaving":
            self._replace(worker, "signal")
        elif message.kind == "failed":
            worker.failure = (UsageError if message.usage else StartError)(message.text)
        elif message.kind == "ready" and not worker.ready and not self._deadline:
            worker.ready = self._has_served = True
            worker.last_beat = time.monotonic()
            self._due.pop(worker.slot, None)
            for other in self._workers.values():
                if other is not worker and other.slot == worker.slot and other.ready:
                    other.retire(self._grace)
            self.on_ready(message.about)

    def _replace(self, worker: WorkerHandle, reason: str) -> None:
        """Start a successor; ``worker`` serves until it is ready."""
        if not worker.successor_requested and not self._deadline:
            worker.successor_requested = True
            self._due.setdefault(worker.slot, 0.0)
            self._say("info", "worker_renewed", worker=worker.slot, reason=reason)

    def _reap(self, worker: WorkerHandle) -> None:
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        self._read_messages(worker, last=True)
        worker.close()
        del self._workers[worker.number]
        self.on_end(worker.number)
        code = os.waitstatus_to_exitcode(status)
        if self._deadline:
            self._code = self._code or int(code != 0 and worker.ready)
        elif worker.abandoned:
            self._due[worker.slot] = 0.0
        elif not worker.leaving:
            self._on_unexpected_exit(worker, code)

    def _on_unexpected_exit(self, worker: WorkerHandle, code: int) -> None:
        failure = worker.failure or StartError(f"a worker exited ({_exit_reason(code)}) before it was ready")
        if self.changed is not None and not worker.ready:
            self._say("error", "waiting_for_a_change", reason=str(failure))
            self._due[worker.slot] = math.inf
        elif not self._has_served:
            self._failure = failure
            self._shut_down()
        elif not worker.ready and (old := self._serving(worker.slot)) is not None:
            wait = self._schedule_restart(worker)
            old.successor_requested = True
            self._say("error", "successor_failed", worker=worker.slot, reason=str(failure), again_in=wait)
        else:
            lived, reason = time.monotonic() - worker.started_at, str(worker.failure or _exit_reason(code))
            wait = self._schedule_restart(worker)
            self._say("error", "worker_lost", worker=worker.slot, reason=reason, lived=round(lived, 1), again_in=wait)

    def _schedule_restart(self, worker: WorkerHandle) -> float:
        """Schedule a restart with exponential backoff for the slot of ``worker``; return the seconds until then."""
        shorter = self._back_off.get(worker.slot, 0.0)
        lived = time.monotonic() - worker.started_at
        longest = MAX_READY_BACK_OFF if worker.ready else MAX_BACK_OFF
        wait = 0.0 if worker.ready and lived > MIN_UPTIME else min(longest, shorter * 2 or 0.5)
        self._back_off[worker.slot] = wait
        self._due[worker.slot] = time.monotonic() + wait
        return wait

    def _serving(self, slot: int) -> WorkerHandle | None:
        return next((worker for worker in self._workers.values() if worker.slot == slot and worker.serves), None)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGHUP and self.reloads:
            for worker in self._workers.values():
                worker.signal(signal.SIGHUP)
        elif not self._deadline:
            self._shut_down()
        elif number == signal.SIGINT:
            self._code = INTERRUPTED
            self._kill_all()

    def _shut_down(self) -> None:
        """Begin the graceful shutdown of all workers; start no more."""
        self._deadline = time.monotonic() + self._grace
        self._due.clear()
        for listener in self._listeners:
            listener.close()  # the workers keep theirs open until they have drained
        for worker in self._workers.values():
            worker.stop(self._grace)

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            worker.kill()
            os.waitpid(worker.pid, 0)
            worker.close()
            self._say("error", "worker_killed", worker=worker.slot)
            self._code = self._code or 1
        self._workers.clear()

    def _reload(self, path: str) -> None:
        self._say("info", "source_changed", path=path)
        for slot in self._slots:
            starting = [worker for worker in self._workers.values() if worker.slot == slot and not worker.ready]
            for worker in starting:  # it has read outdated source
                worker.abandoned = True
                worker.kill()
            if not starting:
                self._due[slot] = 0.0

    def _replace_unhealthy(self) -> None:
        """Kill stuck workers and log their stacks; replace one worker at a time that is due."""
        now = time.monotonic()
        workers = [worker for worker in self._workers.values() if worker.ready and not worker.killed]
        paused = self.renewal.was_paused()
        for worker in workers:
            worker.last_beat = now if paused else worker.last_beat
            if not self.renewal.is_stuck(worker) and not (worker.leaving and now > worker.leaves_by):
                worker.mark_responsive()
            elif worker.has_dumped_stacks():
                self._log_stuck(worker, now)
                worker.kill()
        if any(self._serving(slot) is None for slot in self._slots) or any(
            worker.successor_requested for worker in workers
        ):
            return
        for worker in workers:
            if not worker.leaving and (reason := self.renewal.reason(worker)):
                self._replace(worker, reason)
                return

    def _log_stuck(self, worker: WorkerHandle, now: float) -> None:
        fields = {"work": worker.busy} if worker.busy else {}
        silent = round(now - worker.last_beat, 1)
        self._say("error", "worker_stuck", worker=worker.slot, silent=silent, **fields)
        for thread in worker.stacks():
            self._say("error", "worker_stack", worker=worker.slot, stack=thread)

    def _reassign_slots(self) -> None:
        """Let other workers accept connections on slots whose worker has died, until its successor serves."""
        free = {slot for slot in self._slots if self._serving(slot) is None}
        for worker in self._workers.values():
            if worker.serves:
                for slot in worker.adopted - free:
                    worker.ask(RELEASE, slot)
                worker.adopted &= free
                free -= worker.adopted
        serving = [worker for worker in self._workers.values() if worker.serves]
        for slot in free if serving else ():
            adopter = min(serving, key=lambda worker: len(worker.adopted))
            adopter.adopted.add(slot)
            adopter.ask(ADOPT, slot)


def _run_entrypoint(work: WorkerEntrypoint, context: WorkerContext) -> int:
    try:
        return work(context)
    except AgentServiceError as error:
        context.failed(str(error), usage=isinstance(error, UsageError))
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  the edge: the parent reports it
        context.failed(summarize_error(error))
    return 1


def _exit_reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
