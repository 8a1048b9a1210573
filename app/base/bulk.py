"""Work on large values, kept off the event loop.

A call into C that handles megabytes holds the interpreter for milliseconds; a dozen in a row stop the event loop for a
second. In a thread the same calls take the same time, but the loop has its turn between them (and during those that
release the interpreter, as compression and hashing do).
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Value = TypeVar("Value")

BULK = 256 * 1024
"""Bytes from which on work is worth a thread: below, it takes less than a millisecond."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes of JSON after which a list of states, threads or runs is cut; what is left, the next page has."""

body_bytes: ContextVar[int] = ContextVar("body_bytes", default=0)
"""Bytes of the body of the request that is being served; set where it is read."""


async def offload(size: int, work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Call ``work``: here when it handles fewer than ``BULK`` bytes, else in a thread.

    In a thread it must touch nothing that the loop or another task uses meanwhile.
    """
    if size < BULK:
        return work(*args, **named)
    return await asyncio.to_thread(work, *args, **named)
