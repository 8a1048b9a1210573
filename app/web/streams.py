"""The open answers of a process: how many there may be, and the one timer that looks after them all."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Protocol

from app.base.errors import Limited, Unavailable
from app.base.tasks import Tasks
from app.telemetry.meters import Meters

TICK = 0.25
"""Seconds between two looks at the open streams."""
HEARTBEAT = 5.0
STUCK = 60.0
"""Seconds that one ``send`` may take before its reader is given up."""
MOST = 10_000


class Open(Protocol):
    """An answer that is open, of whose share ``holder`` tells."""

    holder: Hashable

    def stop(self, why: str) -> None:
        """End it: the process drains."""
        ...

    def look(self, now: int) -> None:
        """The tick ``now``: keep it alive, or find that nobody reads it."""
        ...


class Streams:
    """The open answers of this process, at most ``most``, and at most ``most_each`` of one holder (a key)."""

    def __init__(
        self,
        meters: Meters,
        *,
        most: int = MOST,
        most_each: int = MOST,
        tick: float = TICK,
        heartbeat: float = HEARTBEAT,
        stuck: float = STUCK,
    ) -> None:
        self.tasks = Tasks("streams")
        self.draining = False
        self.now = 0
        self.beat_ticks = max(1, round(heartbeat / tick))
        self.stuck_ticks = max(1, round(stuck / tick))
        self._most = most
        self._most_each = most_each
        self._held: Counter[Hashable] = Counter()
        self._tick = tick
        self._gauge = meters.streams_open
        self._rejected = meters.ratelimit_rejected
        meters.streams_limit.set(most)
        self._open: set[Open] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, holder: Hashable = None) -> None:
        """Ask before a run is made for a stream. Raises ``Unavailable`` or ``Limited`` when no more may open."""
        if self.draining:
            raise Unavailable("This server is about to stop; another one takes over.")
        if len(self._open) >= self._most:
            raise Unavailable(f"This server has its {self._most} streams open; try again in a moment.")
        if self._held[holder] >= self._most_each:
            self._rejected.add(1, "streams")
            raise Limited(f"This key has its {self._most_each} streams open on this process: close one.")

    def drain(self) -> None:
        """End all open streams: readers are told to come back, waiting ones are cut so that they join again."""
        self.draining = True
        for stream in self._open:
            stream.stop("drain")

    def opened(self, stream: Open) -> None:
        """Look after ``stream`` from now on."""
        self._open.add(stream)
        self._held[stream.holder] += 1
        self._gauge.add(1)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def closed(self, stream: Open) -> None:
        """``stream`` has ended."""
        self._open.discard(stream)
        self._held[stream.holder] -= 1
        if not self._held[stream.holder]:
            del self._held[stream.holder]
        self._gauge.add(-1)

    def _look(self) -> None:
        self.now += 1
        for stream in self._open:
            stream.look(self.now)
        again = asyncio.get_running_loop().call_later
        self._timer = again(self._tick, self._look) if self._open else None
