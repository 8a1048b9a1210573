"""When a worker is replaced: its event loop is stuck, its lifetime has passed, or it uses too much memory."""

import os
import time
from pathlib import Path
from typing import Protocol

PAGE = os.sysconf("SC_PAGE_SIZE")

CHECK_SECONDS = 1.0

MAX_JITTER = 0.2
"""Jitter of a lifetime, as a share of it."""

PAUSED_SECONDS = 5.0
"""A parent that has not checked for so long was paused, perhaps with its workers: heartbeats restart from now."""


class WorkerProcess(Protocol):
    """A worker: ``last_beat`` is its last heartbeat, ``started_at`` its start (monotonic seconds).

    ``jitter``: its random share of ``MAX_JITTER``, from 0 to 1.
    """

    pid: int
    number: int
    started_at: float
    last_beat: float
    jitter: float


class ReplacementPolicy:
    """Decide which workers to replace; zero disables a rule.

    ``stuck``: heartbeat timeout in seconds, after which a worker is killed. ``lifetime`` (seconds) and ``max_rss``
    (megabytes of resident memory): workers beyond them are replaced gracefully, one at a time.
    """

    def __init__(self, *, stuck: float = 0.0, lifetime: float = 0.0, max_rss: float = 0.0) -> None:
        self._stuck = stuck
        self._lifetime = lifetime
        self._max_rss = max_rss
        self._checked_at = time.monotonic()
        self.active = bool(stuck or lifetime or max_rss)

    def was_paused(self) -> bool:
        """Whether the parent itself was paused since the last call."""
        now = time.monotonic()
        before, self._checked_at = self._checked_at, now
        return now - before > PAUSED_SECONDS

    def is_stuck(self, worker: WorkerProcess) -> bool:
        """Whether the heartbeat timeout has passed."""
        return bool(self._stuck) and time.monotonic() - worker.last_beat > self._stuck

    def reason(self, worker: WorkerProcess) -> str:
        """Return why the worker is due for graceful replacement; empty if it is not."""
        # jitter: workers started together, also on other machines, are not replaced together
        if self._lifetime and time.monotonic() - worker.started_at > self._lifetime * (1 + worker.jitter * MAX_JITTER):
            return "lifetime"
        if self._max_rss and _resident_mb(worker.pid) > self._max_rss:
            return "memory"
        return ""


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0
