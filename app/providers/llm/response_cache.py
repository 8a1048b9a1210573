"""Model wrapper with a response cache and single flight for identical requests.

A request in flight runs in its own task that buffers the model's events; all callers with the same request read the
buffer from its start. The task is cancelled when the last reader leaves, not when the first caller does. The first
reader of the end is charged; for all others it is a cached answer.
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
from app.providers.llm.cached_answer import CachedAnswer, cache_key_parts, is_cacheable, pack, replay, unpack
from app.providers.llm.port import Finished, Model, ModelEvent, ModelRequest

YIELD_EVERY = 16
"""Buffered events sent before yielding to the event loop."""
CLOCK_SKEW = 60.0
"""Tolerated clock difference between machines, in seconds."""


class ModelQuery(NamedTuple):
    """A request, its model, and the lifetime of its answer in seconds."""

    model: Model
    request: ModelRequest
    seconds: float


class InFlightAnswer:
    """Buffer of an answer in flight and its readers. ``from_cache``: it was read from the cache."""

    def __init__(self) -> None:
        self.events: list[ModelEvent] = []
        self.readers = 0
        self.ended = False
        self.error: ModelError = ModelUnavailable("The answer was cut off: this process is shutting down.")
        self.complete = False
        self.charged = False
        self.from_cache = False
        self.task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    def add(self, event: ModelEvent) -> None:
        """Append an event of the model."""
        self.events.append(event)
        self._more.set()

    def end(self) -> None:
        """Mark the end of the answer."""
        self.ended = True
        self._more.set()

    async def read(self) -> AsyncIterator[ModelEvent]:
        """Yield buffered events, then new ones as they arrive. Raises ``ModelError``."""
        at = 0
        while True:
            while at < len(self.events):
                yield self.events[at]
                at += 1
                if at % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if self.ended:
                break
            # the first reader to wake clears it: by then all are scheduled
            await self._more.wait()
            self._more.clear()
        if not self.complete:
            raise self.error


class ResponseCache:
    """The ``cache`` of answers, and the requests in flight in this process, which callers join as streams."""

    def __init__(self, cache: CacheNamespace, meters: Meters, clock: Callable[[], float] = time.time) -> None:
        self.cache = cache
        self._meters = meters
        self._clock = clock
        self._in_flight: dict[bytes, InFlightAnswer] = {}

    def ask(self, key: bytes, model: Model, request: ModelRequest, seconds: float) -> AsyncIterator[ModelEvent]:
        """Return the cached answer for ``key``, join the one in flight, or call ``model``.

        Answers are cached for ``seconds``. Raises ``ModelError``.
        """
        flight = self._in_flight.get(key)
        if flight is None:
            flight = self._in_flight[key] = InFlightAnswer()
            flight.task = self.cache.tasks.start(
                self._run(flight, key, ModelQuery(model, request, seconds)), name="ask"
            )
        else:
            self.cache.count(SHARED)
        return self._read(key, flight)

    async def _run(self, flight: InFlightAnswer, key: bytes, asked: ModelQuery) -> None:
        try:
            answer = await self._find_cached(key, asked.seconds)
            if answer is not None:
                flight.from_cache = True
                flight.events += answer.events
            else:
                async with contextlib.aclosing(asked.model.stream(asked.request)) as events:  # type: ignore[type-var]
                    async for event in events:
                        flight.add(event)
            flight.complete = True
            flight.end()
            if answer is None and is_cacheable(flight.events):
                await self.cache.save({key: pack(flight.events, self._clock())}, asked.seconds)
        except ModelError as error:
            flight.error = error
        finally:
            flight.end()
            self._remove(key, flight)

    async def _find_cached(self, key: bytes, seconds: float) -> CachedAnswer | None:
        """Return the cached answer at ``key``, unless it is older than ``seconds``."""
        answer = (await self.cache.find([key], unpack)).get(key)
        return answer if answer is not None and -CLOCK_SKEW < self._clock() - answer.answered_at < seconds else None

    def _remove(self, key: bytes, flight: InFlightAnswer) -> None:
        if self._in_flight.get(key) is flight:
            del self._in_flight[key]

    async def _read(self, key: bytes, flight: InFlightAnswer) -> AsyncIterator[ModelEvent]:
        """Yield the events of ``flight`` to one reader; the last reader to leave cancels it."""
        flight.readers += 1
        first = flight.readers == 1 and not flight.events
        try:
            async with contextlib.aclosing(flight.read()) as events:  # type: ignore[type-var]
                async for event in events:
                    if flight.from_cache:
                        yield self._replay(event)
                    elif isinstance(event, Finished):
                        charged, flight.charged = flight.charged, True
                        yield self._replay(event) if charged else event
                    else:
                        yield event if first else replay(event)
        finally:
            flight.readers -= 1
            if not flight.readers and not flight.ended and flight.task is not None:
                self._remove(key, flight)
                flight.task.cancel()

    def _replay(self, event: ModelEvent) -> ModelEvent:
        """Copy ``event`` for a reader that is not charged, and count the tokens saved."""
        if isinstance(event, Finished) and event.usage is not None:
            self._meters.cache_tokens.add(event.usage.input_tokens, event.vendor, event.model, "input")
            self._meters.cache_tokens.add(event.usage.output_tokens, event.vendor, event.model, "output")
        return replay(event)


class CachedModel:
    """``model`` with a response cache of ``seconds`` (``app.providers.llm.port.Model``).

    ``identity`` returns the parts of the cache key besides the request; empty: unknown, nothing is cached.
    """

    def __init__(self, model: Model, flights: ResponseCache, identity: Callable[[], list[str]], seconds: float) -> None:
        self.vendor = model.vendor
        self.name = model.name
        self._model = model
        self._flights = flights
        self._identity = identity
        self._seconds = seconds

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Replay a cached answer, join one in flight, or call the model (``app.providers.llm.port.Model``)."""
        identity = self._identity()
        if request.tenant and identity:
            key = self._flights.cache.key(UUID(request.tenant), identity, cache_key_parts(request))
            answer = self._flights.ask(key, self._model, request, self._seconds)
        else:
            answer = self._model.stream(request)
        async with contextlib.aclosing(answer) as events:  # type: ignore[type-var]
            async for event in events:
                yield event
