"""The parent of the workers: starts them, hears them, replaces them, and ends them in order.

It imports next to nothing and has no threads, so that it stays small and may fork at any time: each worker imports the
application anew (docs/decisions/0004-server-process.md).
"""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from app.base.errors import AgentServiceError, StartError, UsageError
from app.serving.child import TELL_STACKS, Worker
from app.serving.events import Say
from app.serving.renewal import LOOK_SECONDS, Renewal
from app.serving.station import Station, first_words

INTERRUPTED = 130
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LONGEST_BACK_OFF = 30.0
YOUNG = 10.0
"""A worker that lived for fewer seconds makes its successor wait, longer each time."""

Work = Callable[[Station], int]
"""What a worker does, from its birth to its exit code."""


class Parent:
    """Keeps one worker alive for each of ``listeners``.

    ``grace``: seconds in which a worker must have ended after SIGTERM. ``on_ready`` is called with what a worker tells
    of itself when it is ready, ``on_end`` with the number of one that has ended. ``changed`` gives the path of a source
    that changed, or an empty text: workers are replaced then, and one that fails to start waits to be mended. With
    ``reloads`` SIGHUP is handed on to the workers, who read their secrets anew; without, it ends them.
    """

    def __init__(self, listeners: Sequence[socket.socket], work: Work, *, grace: float, say: Say) -> None:
        self.on_ready: Callable[[dict[str, str]], None] = lambda _: None
        self.on_end: Callable[[int], None] = lambda _: None
        self.changed: Callable[[], str] | None = None
        self.renewal = Renewal()
        self.reloads = False
        self._listeners = list(listeners)
        self._work = work
        self._grace = grace
        self._say = say
        self._workers: dict[int, Worker] = {}
        self._due: dict[int, float] = {}  # when a missing worker is started again
        self._back_off: dict[int, float] = {}
        self._signals: list[int] = []
        self._served = False
        self._deadline = 0.0  # by when all must have ended, once the end has begun
        self._code = 0
        self._failure: StartError | None = None

    def run(self) -> int:
        """Serve until a signal ends it; the exit code. Raises ``StartError`` when no worker ever got ready."""
        self._lifeline = os.pipe()
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGCHLD)}
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGCHLD):
            if number != signal.SIGHUP or self.reloads or before[number] != signal.SIG_IGN:  # nohup(1) means it
                signal.signal(number, self._note)
        try:
            self._due = dict.fromkeys(range(1, len(self._listeners) + 1), 0.0)
            while self._due or self._workers:
                self._turn()
        finally:
            self._kill()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (*self._lifeline, *self._wakeup):
                os.close(end)
        if self._failure is not None:
            raise self._failure
        return self._code

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _turn(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number)
        self._sleep()
        while self._signals:
            self._signalled(self._signals.pop(0))
        for worker in list(self._workers.values()):
            self._listen_to(worker)
            self._reap(worker)
        if self._deadline and time.monotonic() > self._deadline:
            self._kill()
        elif self.changed is not None and not self._deadline and (path := self.changed()):
            self._replace(path)
        if self.renewal.active and not self._deadline:
            self._renew()

    def _sleep(self) -> None:
        """Until somebody says something, ends, or is due."""
        poll = select.poll()
        for end in (self._wakeup[0], *(worker.link for worker in self._workers.values())):
            poll.register(end, select.POLLIN)
        dues = [*self._due.values(), *([self._deadline] if self._deadline else [])]
        if self.changed is not None:
            dues.append(time.monotonic() + 0.2)
        if self.renewal.active:
            dues.append(time.monotonic() + LOOK_SECONDS)
        wait = max(0.0, min(dues) - time.monotonic()) * 1000 + 1 if dues else None
        poll.poll(wait)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)

    def _start(self, number: int) -> None:
        (heard, link), (stacks, dump) = os.pipe(), os.pipe()
        for end in (heard, stacks, dump):  # a dump that is too long is cut, and holds nobody up
            os.set_blocking(end, False)
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal between the fork and the child's own handlers would be noted by nobody
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        pid = os.fork()
        if pid == 0:
            for end in (heard, stacks):
                os.close(end)
            faulthandler.register(TELL_STACKS, file=dump, all_threads=True)
            self._become(number, link)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        for end in (link, dump):
            os.close(end)
        self._workers[number] = Worker(number, pid, heard, stacks)

    def _become(self, number: int, link: int) -> None:
        """Be the worker. Never returns: what the parent has open and has to clean up is the parent's."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Ctrl-C and the end of a terminal reach every process of it; the parent tells its workers in order
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            for end in (self._lifeline[1], *self._wakeup):
                os.close(end)
            for other in self._workers.values():
                other.close()
            for place, listener in enumerate(self._listeners, 1):
                if place != number:
                    listener.close()
            station = Station(number, self._listeners[number - 1], link, self._lifeline[0], self._grace)
            code = _worked(self._work, station)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _listen_to(self, worker: Worker) -> None:
        for message in worker.hear():
            if "alive" in message:
                worker.heard = time.monotonic()
            elif "ready" in message:
                worker.ready = self._served = True
                worker.heard = time.monotonic()
                self.on_ready(message["ready"])  # type: ignore[arg-type]
            else:
                kind = UsageError if message["usage"] else StartError
                worker.failure = kind(str(message["failed"]))

    def _reap(self, worker: Worker) -> None:
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        self._listen_to(worker)  # what it said last
        worker.close()
        del self._workers[worker.number]
        self.on_end(worker.number)
        code = os.waitstatus_to_exitcode(status)
        if self._deadline:
            self._code = self._code or int(code != 0 and worker.ready)
        elif worker.leaving:
            self._due[worker.number] = 0.0
        else:
            self._lost(worker, code)

    def _lost(self, worker: Worker, code: int) -> None:
        failure = worker.failure or StartError(f"a worker ended by itself ({_words(code)}) before it was ready")
        if self.changed is not None and not worker.ready:
            self._say("error", "waiting_for_a_change", reason=str(failure))
            self._due[worker.number] = float("inf")
        elif not self._served:
            self._failure = failure
            self._end()
        else:
            lived = time.monotonic() - worker.born
            shorter = self._back_off.get(worker.number, 0.0)
            wait = 0.0 if lived > YOUNG else min(LONGEST_BACK_OFF, shorter * 2 or 0.5)
            self._back_off[worker.number] = wait
            self._due[worker.number] = time.monotonic() + wait
            reason = str(worker.failure or _words(code))
            self._say("error", "worker_lost", worker=worker.number, reason=reason, lived=round(lived, 1), again_in=wait)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP and self.reloads:
            for worker in self._workers.values():
                worker.signal(signal.SIGHUP)
        elif not self._deadline:
            self._end()
        elif number == signal.SIGINT:
            self._code = INTERRUPTED
            self._kill()

    def _end(self) -> None:
        """Begin the end: nobody new, everybody leaves."""
        self._deadline = time.monotonic() + self._grace
        self._due.clear()
        for listener in self._listeners:
            listener.close()  # the workers have theirs until they have drained
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)

    def _kill(self) -> None:
        for worker in self._workers.values():
            worker.signal(signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.close()
            self._say("error", "worker_killed", worker=worker.number)
            self._code = self._code or 1
        self._workers.clear()

    def _replace(self, path: str) -> None:
        self._say("info", "source_changed", path=path)
        for number in self._due:
            self._due[number] = 0.0
        for worker in self._workers.values():
            worker.leave(self._grace)

    def _renew(self) -> None:
        """Kill who is stuck, and say where it was; let one at a time go in order whose time is over."""
        now = time.monotonic()
        workers = [worker for worker in self._workers.values() if worker.ready]
        paused = self.renewal.was_paused()
        for worker in workers:
            worker.heard = now if paused else worker.heard
            if not self.renewal.is_stuck(worker) and not (worker.leaving and now > worker.leaves_by):
                worker.goes_on()
            elif worker.has_told_stacks():
                self._say("error", "worker_stuck", worker=worker.number, silent=round(now - worker.heard, 1))
                for thread in worker.stacks():
                    self._say("error", "worker_stack", worker=worker.number, stack=thread)
                worker.signal(signal.SIGKILL)
        if len(workers) < len(self._listeners) or any(worker.leaving for worker in workers):
            return
        for worker in workers:
            if reason := self.renewal.reason(worker):
                self._say("info", "worker_renewed", worker=worker.number, reason=reason)
                worker.leave(self._grace)
                return


def _worked(work: Work, station: Station) -> int:
    try:
        return work(station)
    except AgentServiceError as error:
        station.failed(str(error), usage=isinstance(error, UsageError))
    except Exception as error:  # noqa: BLE001  the edge: the parent has the words
        station.failed(first_words(error))
    return 1


def _words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
