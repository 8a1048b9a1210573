"""Wait for conditions that no event announces: of other processes, rows and files."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

SECONDS = 20.0


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Poll ``condition`` until its result is truthy, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.02)
    return found


async def eventually(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Poll ``condition``, a function or a coroutine function, on the event loop; return its first truthy result."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
