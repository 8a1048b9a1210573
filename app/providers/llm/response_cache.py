"""A model whose answers are kept, and that is asked once for what several want at the same time.

A question that is under way is a flight: a task of its own puts what the model says into memory, and everybody who asks
the same reads from there, from the start. It ends when nobody reads any more; that whoever asked first goes away does
not matter while another one is there. The first who hears the end pays; the answer is a kept one for all others.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from uuid import UUID

from app.base.errors import ModelError, ModelUnavailable
from app.infra.cache.namespaces import SHARED, CacheNamespace
from app.infra.telemetry.meters import Meters
from app.providers.llm.cached_answer import CachedAnswer, is_cacheable, pack, question_of, replay, unpack
from app.providers.llm.port import Finished, Model, ModelEvent, ModelRequest

YIELD_EVERY = 16
"""Pieces that are said before others have their turn."""
SLACK = 60.0
"""Seconds that the clocks of two machines may differ."""


class ModelQuery(NamedTuple):
    """Who is asked what, and for how long the answer is good."""

    model: Model
    request: ModelRequest
    seconds: float


class InFlightAnswer:
    """An answer while it comes, and all who read it. ``from_cache``: it had been given before."""

    def __init__(self) -> None:
        self.events: list[ModelEvent] = []
        self.readers = 0
        self.ended = False
        self.error: ModelError = ModelUnavailable("The answer was cut off: this process stops.")
        self.whole = False
        self.paid = False
        self.from_cache = False
        self.task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    def add(self, event: ModelEvent) -> None:
        """The model has said this."""
        self.events.append(event)
        self._more.set()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self._more.set()

    async def read(self) -> AsyncIterator[ModelEvent]:
        """What is there and what comes, as the model says it. Raises ``ModelError``."""
        at = 0
        while True:
            while at < len(self.events):
                yield self.events[at]
                at += 1
                if at % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if self.ended:
                break
            # whoever wakes first clears it: all are woken by then
            await self._more.wait()
            self._more.clear()
        if not self.whole:
            raise self.error


class SingleFlight:
    """The questions under way in this process, and the ``shelf`` of their answers."""

    def __init__(self, shelf: CacheNamespace, meters: Meters, clock: Callable[[], float] = time.time) -> None:
        self.shelf = shelf
        self._meters = meters
        self._clock = clock
        self._under_way: dict[bytes, InFlightAnswer] = {}

    def ask(self, key: bytes, model: Model, request: ModelRequest, seconds: float) -> AsyncIterator[ModelEvent]:
        """The answer to ``request``, which has the key ``key``: the kept one, or that of ``model``.

        It is good for ``seconds``. Raises ``ModelError``.
        """
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = InFlightAnswer()
            flight.task = self.shelf.tasks.start(
                self._fly(flight, key, ModelQuery(model, request, seconds)), name="ask"
            )
        else:
            self.shelf.count(SHARED)
        return self._read(key, flight)

    async def _fly(self, flight: InFlightAnswer, key: bytes, asked: ModelQuery) -> None:
        try:
            answer = await self._kept(key, asked.seconds)
            if answer is not None:
                flight.from_cache = True
                flight.events += answer.events
            else:
                async with contextlib.aclosing(asked.model.stream(asked.request)) as events:  # type: ignore[type-var]
                    async for event in events:
                        flight.add(event)
            flight.whole = True
            flight.end()
            if answer is None and is_cacheable(flight.events):
                await self.shelf.save({key: pack(flight.events, self._clock())}, asked.seconds)
        except ModelError as error:
            flight.error = error
        finally:
            flight.end()
            self._leave(key, flight)

    async def _kept(self, key: bytes, seconds: float) -> CachedAnswer | None:
        """The answer at ``key``, unless it is older than ``seconds``."""
        answer = (await self.shelf.find([key], unpack)).get(key)
        return answer if answer is not None and -SLACK < self._clock() - answer.given_at < seconds else None

    def _leave(self, key: bytes, flight: InFlightAnswer) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]

    async def _read(self, key: bytes, flight: InFlightAnswer) -> AsyncIterator[ModelEvent]:
        """What ``flight`` brings one of its readers; the last one who goes away ends it."""
        flight.readers += 1
        first = flight.readers == 1 and not flight.events
        try:
            async with contextlib.aclosing(flight.read()) as events:  # type: ignore[type-var]
                async for event in events:
                    if flight.from_cache:
                        yield self._again(event)
                    elif isinstance(event, Finished):
                        paid, flight.paid = flight.paid, True
                        yield self._again(event) if paid else event
                    else:
                        yield event if first else replay(event)
        finally:
            flight.readers -= 1
            if not flight.readers and not flight.ended and flight.task is not None:
                self._leave(key, flight)
                flight.task.cancel()

    def _again(self, event: ModelEvent) -> ModelEvent:
        """``event`` for one who does not pay; what he does not pay is counted."""
        if isinstance(event, Finished) and event.usage is not None:
            self._meters.cache_tokens.add(event.usage.input_tokens, event.vendor, event.model, "input")
            self._meters.cache_tokens.add(event.usage.output_tokens, event.vendor, event.model, "output")
        return replay(event)


class CachedModel:
    """``model`` with its answers kept for ``seconds`` (``app.providers.llm.port.Model``).

    ``identity`` tells all that an answer depends on besides the question; empty: it is not known, nothing is kept.
    """

    def __init__(self, model: Model, flights: SingleFlight, identity: Callable[[], list[str]], seconds: float) -> None:
        self.vendor = model.vendor
        self.name = model.name
        self._model = model
        self._flights = flights
        self._identity = identity
        self._seconds = seconds

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say the answer that is there, go along with one that is coming, or ask (``app.providers.llm.port.Model``)."""
        identity = self._identity()
        if request.tenant and identity:
            key = self._flights.shelf.key(UUID(request.tenant), identity, question_of(request))
            answer = self._flights.ask(key, self._model, request, self._seconds)
        else:
            answer = self._model.stream(request)
        async with contextlib.aclosing(answer) as events:  # type: ignore[type-var]
            async for event in events:
                yield event
