"""Event loop lag, and metrics that are sampled every few seconds."""

import asyncio
import os
import resource
from collections.abc import Callable
from pathlib import Path

from app.infra.telemetry.meters import Meters

TICK_SECONDS = 0.5
"""Interval of the timer."""
TICKS_PER_SAMPLE = 6

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

SampleFunction = Callable[[], None]
"""Sets gauges; must not block."""


class LoopLag:
    """Measures the lag of a timer twice per second, and calls the ``samples`` every few ticks."""

    def __init__(self, meters: Meters, *samples: SampleFunction) -> None:
        self._loop_lag = meters.loop_lag
        self._samples = samples
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def also(self, sample: SampleFunction) -> None:
        """Add ``sample``."""
        self._samples = (*self._samples, sample)

    def start(self) -> None:
        """Start measuring the running loop."""
        self._sample()
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(TICK_SECONDS, self._tick, loop, loop.time() + TICK_SECONDS)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._loop_lag.record(max(0.0, loop.time() - due))
        self._ticks += 1
        if self._ticks % TICKS_PER_SAMPLE == 0:
            self._sample()
        self._schedule(loop)

    def _sample(self) -> None:
        for sample in self._samples:
            sample()


class ProcessCollector:
    """CPU time, memory, file descriptors and tasks of this process."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._used = (0.0, 0.0)

    def sample(self) -> None:
        """Set the gauges."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = (usage.ru_utime, usage.ru_stime)
        for mode, now, before in zip(("user", "system"), used, self._used, strict=True):
            self._meters.cpu.add(max(0.0, now - before), mode)
        self._used = used
        self._meters.workers.set(1)
        self._meters.tasks.set(len(asyncio.all_tasks()))
        try:
            self._meters.memory.set(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE)
            self._meters.descriptors.set(Path("/proc/self/fd").stat().st_size)  # their number, as of Linux 6.2
        except (OSError, IndexError):
            return  # not on Linux
