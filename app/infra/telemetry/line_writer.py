"""Write log lines from a background thread; drop them if the sink blocks, such as a pipe that is not read."""

import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable

MAX_PENDING_LINES = 10_000
"""Queued lines; more are dropped and counted."""
LAST_SECONDS = 1.0
"""Timeout of the final flush."""


class LineWriter:
    """Writes lines to the file descriptor ``out`` from a thread, in order.

    ``report`` is called from that thread with the number of dropped lines, once writing works again.
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
        """Queue ``line``, which includes its line end. Thread-safe; never blocks."""
        if (
            self._waiting.qsize() >= self._max_pending and threading.get_ident() != self._writer
        ):  # reports are never dropped
            self.dropped += 1
            return
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._run, name="lines", daemon=True).start()
        self._taken += 1
        self._waiting.put(line)

    def flush(self, seconds: float = LAST_SECONDS) -> None:
        """Wait until all lines are written, for at most ``seconds``."""
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
    """Write ``data``, blocking as long as needed; False if the descriptor is closed or broken."""
    while data:
        try:
            data = data[os.write(out, data) :]
        except BlockingIOError:  # another process has made the shared descriptor non-blocking
            poll = select.poll()
            poll.register(out, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


def write_now(out: int, data: bytes) -> bool:
    """Write ``data`` if that is possible without blocking; whether it was. At most 4096 bytes, which a pipe writes
    atomically.
    """
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    with contextlib.suppress(OSError):
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            return os.write(out, data) == len(data)
    return False
