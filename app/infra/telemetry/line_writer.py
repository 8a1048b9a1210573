"""Lines on their way out: nobody waits for a sink that takes none, such as a pipe that is not read."""

import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable

MAX_PENDING_LINES = 10_000
"""Lines that may wait; what comes then is dropped, and counted."""
LAST_SECONDS = 1.0
"""How long the last lines of a process may take."""


class LineWriter:
    """Writes lines to the file descriptor ``out`` from a thread of its own, in order.

    ``report`` is called from that thread with the number of lines that were dropped, once lines get through again.
    """

    def __init__(
        self, out: int, report: Callable[[int], None] = lambda _: None, max_pending: int = MAX_PENDING_LINES
    ) -> None:
        self._out = out
        self._report = report
        self._max_pending = max_pending
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._begun = False
        self._writer = 0
        self._reported = 0
        self._written = self._taken = 0
        self.dropped = 0

    def write(self, line: str) -> None:
        """Send ``line``, which ends itself; from any thread, never blocking."""
        if self._waiting.qsize() >= self._max_pending and threading.get_ident() != self._writer:  # a report always fits
            self.dropped += 1
            return
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._run, name="lines", daemon=True).start()
        self._taken += 1
        self._waiting.put(line)

    def flush(self, seconds: float = LAST_SECONDS) -> None:
        """Wait until all lines are out, for ``seconds`` at most."""
        deadline = time.monotonic() + seconds
        while self._written < self._taken and time.monotonic() < deadline:
            time.sleep(0.001)

    def _run(self) -> None:
        self._writer = threading.get_ident()
        while True:
            line = self._waiting.get()
            if not write_all(self._out, line.encode("utf-8", "backslashreplace")):
                self.dropped += 1
            elif self.dropped > self._reported:
                dropped, self._reported = self.dropped - self._reported, self.dropped
                self._report(dropped)
            self._written += 1


def write_all(out: int, data: bytes) -> bool:
    """Write ``data``, however long that takes; whether there was somebody to write to."""
    while data:
        try:
            data = data[os.write(out, data) :]
        except BlockingIOError:  # whoever shares the descriptor has made it so
            poll = select.poll()
            poll.register(out, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


def write_now(out: int, data: bytes) -> bool:
    """Write ``data`` if that goes at once; whether it did. At most 4096 bytes, which a pipe takes whole or not."""
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    with contextlib.suppress(OSError):
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            return os.write(out, data) == len(data)
    return False
