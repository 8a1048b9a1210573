"""Refusals of one address, answered later once there are many: a flood of bad credentials costs little that way.

Only the answers to bad credentials wait. A valid credential from the same address, which many clients share behind a
proxy that is not trusted, is never held up.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from app.web.proxies import Proxies

FREE = 300
"""Refusals of one address that are answered at once, in each window."""

WINDOW_SECONDS = 10.0
DELAY_SECONDS = 2.0

MAX_ADDRESSES = 10_000


class Slowdown:
    """Counts refusals by address, as ``proxies`` tell it; ``clock`` counts seconds."""

    def __init__(self, proxies: Proxies, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = proxies
        self._clock = clock
        self._refusals: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def wait(self, scope: Any) -> None:
        """Count one more refusal of the address that sent the request, and wait if there were many."""
        if self._count(self._proxies.client(scope)) > FREE:
            await asyncio.sleep(DELAY_SECONDS)

    def _count(self, address: str) -> int:
        moment = self._clock()
        until, count = self._refusals.pop(address, (0.0, 0))
        if until <= moment:
            until, count = moment + WINDOW_SECONDS, 0
        self._refusals[address] = until, count + 1
        if len(self._refusals) > MAX_ADDRESSES:
            self._refusals.popitem(last=False)
        return count + 1
