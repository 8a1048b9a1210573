"""How a running tool speaks to its clients."""

import asyncio
import threading
from typing import Any, Self

import msgspec

from app.agents.port import RunContext
from app.domain.events import Custom

_encode = msgspec.json.Encoder().encode


class Voice:
    """Sends values to ``custom`` streams from any thread, while its call runs and no longer.

    A sync tool that was left behind, or a task that a tool forgot, would otherwise speak into steps that are none of
    its own, or after the end of the run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False

    def say(self, value: Any) -> None:
        """Send ``value``. Raises ``TypeError`` for one that is no JSON."""
        event = Custom(data=msgspec.Raw(_encode(value)))
        if threading.get_ident() == self._thread:
            self._say(event)
        else:
            self._loop.call_soon_threadsafe(self._say, event)

    def _say(self, event: Custom) -> None:
        if self._open:
            self._context.emit(event)
