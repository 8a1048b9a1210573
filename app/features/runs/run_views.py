"""What subscribers get of a run: frames of stream modes, or its events, from the live feed and from the log alike."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Hashable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Row

from app.base.offload import offload
from app.domain.event_id import EventId
from app.domain.events import Event, InputApplied, Interrupted, StepCommitted
from app.domain.state import NO_VALUES, Values
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.streams.feed import AnyFrame, DeferredFrame, Feed, FeedTruncated
from app.engine.streams.frames import FrameRenderer
from app.engine.streams.send_budget import SMALL, SendBudget
from app.features.runs import queries
from app.features.runs.event_log import LoggedEvents, LoggedRun

YIELD_EVERY = 16
"""Events of a replay after which control returns to the event loop."""

OPENED = b": open\r\n\r\n"
"""Begins the stream of a thread at once: clients wait for its headers before they continue."""

RETRY = b"retry: 1000\r\n\r\n"
"""Ends a stream of a draining process: the client reconnects after a second, to another process."""

Item = TypeVar("Item", bytes, list[Event])


class RunView(Protocol[Item]):
    """What one subscriber gets of a run. ``stopping``: the last item from a process that stops."""

    stopping: Item

    async def take(self, feed: Feed, position: EventId) -> tuple[EventId, Item] | None:
        """Return what follows ``position`` and the position after it; None if there is nothing yet.

        Raises ``FeedTruncated`` if it is no longer in the feed.
        """
        ...

    def replay(self, logged: LoggedRun, after: EventId) -> AsyncGenerator[tuple[EventId, Item], None]:
        """Yield what follows ``after`` in the event log, with the positions."""
        ...


class EventView:
    """The events of a run. Implements ``RunView``.

    Events at the end of an owner's log that have no frame come with the first frame of the next owner.
    """

    def __init__(self, send_budget: SendBudget, holder: Hashable) -> None:
        self._send_budget = send_budget
        self._holder = holder
        self.stopping: list[Event] = []
        self._epoch = 0
        self._frameless: list[Event] = []

    async def take(self, feed: Feed, position: EventId) -> tuple[EventId, list[Event]] | None:
        """Take events from the feed."""
        if not feed.has_events:
            raise FeedTruncated
        taken = feed.take_events(position)
        if taken is None or not self._frameless:
            return taken
        logged, self._frameless = self._frameless, []
        reached, events = taken
        return (reached, [*logged, *events]) if feed.epoch > self._epoch else taken  # their own feed has them too

    async def replay(self, logged: LoggedRun, after: EventId) -> AsyncGenerator[tuple[EventId, list[Event]], None]:
        """Yield batches of events; those without a frame come with the next frame."""
        renderer = FrameRenderer(logged.modes, 0)
        self._frameless = []
        async for batch in logged.events():
            renderer = _at(renderer, logged, batch)
            self._epoch = renderer.epoch
            found: list[Event] = []
            async with self._send_budget.room(self._holder) as share:
                if batch.size > SMALL and not share.fits(batch.size):
                    await share.wait()
                for event in batch.events:
                    start = renderer.seq
                    self._frameless.append(event)
                    if renderer.render(event, _values_of(event)):
                        if EventId(renderer.epoch, start + 1) > after:
                            found += self._frameless
                        self._frameless = []
                share.made(batch.size if batch.size > SMALL else 0)
                yield EventId(renderer.epoch, renderer.seq), found
            await asyncio.sleep(0)


class FrameView:
    """Chunks of frames in some stream modes (None: all of the run's). Implements ``RunView``.

    Large chunks count against ``send_budget``, for ``holder``.
    """

    stopping = RETRY

    def __init__(self, send_budget: SendBudget, modes: Collection[str] | None, holder: Hashable) -> None:
        self._send_budget = send_budget
        self._modes = modes
        self._holder = holder

    async def take(self, feed: Feed, position: EventId) -> tuple[EventId, bytes] | None:
        """Take a chunk from the feed."""
        await feed.encode_next(position, self._modes)
        return feed.take(position, self._modes)

    async def replay(self, logged: LoggedRun, after: EventId) -> AsyncGenerator[tuple[EventId, bytes], None]:
        """Yield chunks of rendered events."""
        renderer = FrameRenderer(logged.modes, 0)
        async for epoch, seq, events, size in logged.events():
            renderer = _at(renderer, logged, LoggedEvents(epoch, seq, events, size))
            while events:
                event = events.popleft()
                values = _values_of(event) if renderer.needs_values(event) else NO_VALUES
                # a large event is rendered once there is room for it: subscribers that wait hold no frames
                frames = self._render(renderer, event, values, after) if size <= SMALL else None
                if frames is None or any(isinstance(frame, DeferredFrame) for frame in frames):
                    async with self._send_budget.room(self._holder) as share:
                        if frames is None:
                            if not share.fits(size):
                                await share.wait()
                            frames = self._render(renderer, event, values, after)
                        stored = await _read_values(logged, frames)
                        if not share.fits(max((values.size for values in stored), default=0)):
                            _release(stored)
                            await share.wait()
                            stored = await _read_values(logged, frames)
                        chunk = _joined(frames)
                        _release(stored)
                        share.made(len(chunk) + (size if size > SMALL else 0))
                        del event, frames
                        yield EventId(epoch, renderer.seq), chunk
                        del chunk
                else:
                    yield EventId(epoch, renderer.seq), _joined(frames)
                if len(events) % YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    def _render(self, renderer: FrameRenderer, event: Event, values: Values, after: EventId) -> list[AnyFrame]:
        """Return the frames to send of ``event``."""
        epoch, start = renderer.epoch, renderer.seq
        return [
            frame
            for seq, frame in enumerate(renderer.render(event, values), start + 1)
            if (epoch, seq) > after and (self._modes is None or not frame.mode or frame.mode in self._modes)
        ]


def _at(renderer: FrameRenderer, logged: LoggedRun, batch: LoggedEvents) -> FrameRenderer:
    """Return a renderer for the owner of ``batch``, which continues at its first frame."""
    if batch.epoch != renderer.epoch:
        renderer = FrameRenderer(logged.modes, batch.epoch)
    renderer.seq = batch.seq - 1
    return renderer


class StoredValues:
    """The values at a checkpoint (``app.domain.state.Values``), loaded only if the subscriber's modes need them.

    Renderers keep the object for later events, so the JSON is released as soon as it is sent.
    """

    __slots__ = ("_json", "checkpoint_id", "size")

    def __init__(self, checkpoint_id: UUID) -> None:
        self.checkpoint_id = checkpoint_id
        self.put(b"")

    def put(self, json: bytes) -> None:
        """Set the loaded ``json``; empty releases it."""
        self._json, self.size = json, len(json)

    def json(self) -> bytes:
        """Return the loaded JSON, as ``Values.json``."""
        return self._json


def _values_of(event: Event) -> Values:
    if isinstance(event, InputApplied | StepCommitted | Interrupted):
        return StoredValues(UUID(event.checkpoint_id))
    return NO_VALUES


async def _read_values(logged: LoggedRun, frames: Sequence[AnyFrame]) -> list[StoredValues]:
    """Load the stored values that ``frames`` refer to, each once."""
    deferred = [frame.values for frame in frames if isinstance(frame, DeferredFrame)]
    stored = list(dict.fromkeys(values for values in deferred if isinstance(values, StoredValues)))
    for values in stored:
        async with logged.reading() as session:
            row = await queries.checkpoint(session, logged.tenant_id, logged.thread_id, values.checkpoint_id)
        size, holder = (0, []) if row is None else (size_of(row), [row])
        del row
        values.put(await offload(size, json_of, holder) if holder else b"{}")
    return stored


def json_of(holder: list[Row[Any]]) -> bytes:
    """Return the values of the row that is popped from ``holder``, so that it is freed before they are encoded."""
    state = read(holder.pop(), 0).state
    return state.json()


def _release(values: Sequence[StoredValues]) -> None:
    for one in values:
        one.put(b"")


def _joined(frames: Sequence[AnyFrame]) -> bytes:
    return b"".join([frame.data for frame in frames])
