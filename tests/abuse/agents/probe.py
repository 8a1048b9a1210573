"""Measures, inside the attacked worker, for how long its event loop was blocked.

A timer every few milliseconds records its delay. A delay counts only as far as this process used the CPU meanwhile,
because timers are late on a busy machine. The maximum since the last reset and the process id are in a shared file.
"""

import asyncio
import contextlib
import mmap
import os
import struct
import time
from pathlib import Path

from app.agents.function import Context

EVERY = 0.005
LAYOUT = struct.Struct("=dq")
LATE = struct.Struct("=d")
"""Written alone: packing clears its bytes first, and another process must never read no process id."""


def _map(path: str) -> mmap.mmap:
    with Path(path).open("r+b") as file:
        return mmap.mmap(file.fileno(), LAYOUT.size)


class LoopProbe:
    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop = loop
        self._shared = _map(path)
        LAYOUT.pack_into(self._shared, 0, 0.0, os.getpid())
        self._plan()

    def _plan(self) -> None:
        self._cpu = time.process_time()
        self._due = self._loop.time() + EVERY
        self._loop.call_later(EVERY, self._measure)

    def _measure(self) -> None:
        late = min(self._loop.time() - self._due, time.process_time() - self._cpu)
        if late > LAYOUT.unpack_from(self._shared)[0]:
            LATE.pack_into(self._shared, 0, late)
        self._plan()


with contextlib.suppress(RuntimeError, KeyError):  # no loop runs during `agents check`
    LoopProbe(asyncio.get_running_loop(), os.environ["ABUSE_PROBE"])


async def run(context: Context) -> str:
    return "probed"
