"""A model that plays turns written in a test."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from app.base.errors import ModelRejected
from app.domain.messages import ToolCall
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, TextDelta
from app.providers.llm.scripted import VENDOR, delta_of, finish

ScriptLine = str | ToolCall | ModelEvent | BaseException | asyncio.Event
"""One item of a turn: a text delta, a call, any event, an error to raise, or an asyncio event to wait for."""

ScriptTurn = str | Sequence[ScriptLine]


class ScriptedModel:
    """Play ``turns``, one for each call of ``stream``, and record the requests in ``requests``.

    A ``Finished`` is added to turns without one. Raises ``ModelRejected`` if no turn is left.
    """

    def __init__(self, turns: Iterable[ScriptTurn], *, name: str = "test", vendor: str = VENDOR) -> None:
        self.vendor = vendor
        self.name = name
        self.requests: list[ModelRequest] = []
        self._turns = iter(turns)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Play the next turn (``app.providers.llm.port.Model``)."""
        self.requests.append(request)
        turn = next(self._turns, None)
        if turn is None:
            raise ModelRejected("the script has no more turns", vendor=self.vendor)
        events: list[ModelEvent] = []
        calls = 0
        for line in (turn,) if isinstance(turn, str) else turn:
            if isinstance(line, BaseException):
                raise line
            if isinstance(line, asyncio.Event):
                await line.wait()
                continue
            event: ModelEvent
            if isinstance(line, str):
                event = TextDelta(line)
            elif isinstance(line, ToolCall):
                event = delta_of(calls, line)
                calls += 1
            else:
                event = line
            events.append(event)
            yield event
        if not events or not isinstance(events[-1], Finished):
            yield finish(self.name, request, events, vendor=self.vendor)
