"""Measures how late the event loop is, and now and then what nobody tells of by himself."""

import asyncio
import os
import resource
from collections.abc import Callable
from pathlib import Path

from app.infra.telemetry.meters import Meters

EVERY = 0.5
"""Seconds between two looks."""
LOOKS_A_SAMPLE = 6

PAGE = os.sysconf("SC_PAGE_SIZE")

SampleFunction = Callable[[], None]
"""Reads something and sets gauges; it must not wait for anything."""


class LoopLag:
    """Sets a timer twice a second and records how late it ran; every few times it takes the ``samples`` too."""

    def __init__(self, meters: Meters, *samples: SampleFunction) -> None:
        self._record = meters.loop_lag.record
        self._samples = samples
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def also(self, sample: SampleFunction) -> None:
        """Take ``sample`` too."""
        self._samples = (*self._samples, sample)

    def start(self) -> None:
        """Start to measure the running loop."""
        self._sample()
        self._plan(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(EVERY, self._look, loop, loop.time() + EVERY)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._record(max(0.0, loop.time() - due))
        self._looks += 1
        if self._looks % LOOKS_A_SAMPLE == 0:
            self._sample()
        self._plan(loop)

    def _sample(self) -> None:
        for sample in self._samples:
            sample()


class ProcessCollector:
    """What this process takes of its machine."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._used = (0.0, 0.0)

    def sample(self) -> None:
        """Look now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = (usage.ru_utime, usage.ru_stime)
        for mode, now, before in zip(("user", "system"), used, self._used, strict=True):
            self._meters.cpu.add(max(0.0, now - before), mode)
        self._used = used
        self._meters.workers.set(1)
        self._meters.tasks.set(len(asyncio.all_tasks()))
        try:
            self._meters.memory.set(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
            self._meters.descriptors.set(Path("/proc/self/fd").stat().st_size)  # their number, as of Linux 6.2
        except (OSError, IndexError):
            return  # no Linux
