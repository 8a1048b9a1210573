"""Measures, inside the attacked worker, how long its event loop was kept from turning.

A timer every few milliseconds notes how late it ran. On a busy machine a timer is late without anyone's fault, so a
delay counts only as far as this process used the CPU within it. The greatest since the last reset, and the process id,
lie in a file that the test maps too.
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
        self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        late = min(self._loop.time() - self._due, time.process_time() - self._cpu)
        if late > LAYOUT.unpack_from(self._shared)[0]:
            LAYOUT.pack_into(self._shared, 0, late, os.getpid())
        self._plan()


with contextlib.suppress(RuntimeError, KeyError):  # no loop runs where agents are only checked
    LoopProbe(asyncio.get_running_loop(), os.environ["ABUSE_PROBE"])


async def run(context: Context) -> str:
    return "probed"
