"""When a worker is to be replaced: it is stuck, it has lived long enough, or it has grown too large."""

import os
import time
from pathlib import Path
from typing import Protocol

PAGE = os.sysconf("SC_PAGE_SIZE")

LOOK_SECONDS = 1.0

MAX_SPREAD = 0.2
"""The part of a lifetime by which a worker may outlive it."""

PAUSED_SECONDS = 5.0
"""A parent that has not looked for so long was paused, and its workers perhaps with it: it begins to count anew."""


class WorkerProcess(Protocol):
    """A worker: ``last_beat`` is when its event loop turned last, ``born`` when it began (monotonic seconds).

    ``spread``, a random number up to 1, is its own share of what lifetimes differ by.
    """

    pid: int
    number: int
    born: float
    last_beat: float
    spread: float


class ReplacementPolicy:
    """The rules; zero switches one off.

    ``stuck``: seconds in which an event loop must turn. ``lifetime``: seconds after which a worker is replaced in
    order, one after the other. ``max_rss``: megabytes of resident memory, likewise.
    """

    def __init__(self, *, stuck: float = 0.0, lifetime: float = 0.0, max_rss: float = 0.0) -> None:
        self._stuck = stuck
        self._lifetime = lifetime
        self._max_rss = max_rss
        self._looked = time.monotonic()
        self.active = bool(stuck or lifetime or max_rss)

    def was_paused(self) -> bool:
        """Whether the parent itself was paused since the last look."""
        now = time.monotonic()
        before, self._looked = self._looked, now
        return now - before > PAUSED_SECONDS

    def is_stuck(self, worker: WorkerProcess) -> bool:
        """Whether its event loop does not turn any more."""
        return bool(self._stuck) and time.monotonic() - worker.last_beat > self._stuck

    def reason(self, worker: WorkerProcess) -> str:
        """Why it shall go in order now; empty when it may stay."""
        # spread, so that those born together, on other machines too, do not go together
        if self._lifetime and time.monotonic() - worker.born > self._lifetime * (1 + worker.spread * MAX_SPREAD):
            return "lifetime"
        if self._max_rss and _resident_mb(worker.pid) > self._max_rss:
            return "memory"
        return ""


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0
