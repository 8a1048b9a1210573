"""In-memory feed of a run's frames: one publisher, any number of subscribers, each with its own cursor.

A frame is encoded bytes with the stream mode it belongs to (``""`` for frames that all subscribers get). Subscribers
are woken once for all new frames and get them as one chunk; a slow one costs only its cursor. Beyond ``MAX_BYTES`` the
oldest frames are evicted; a subscriber that still needs them resumes from the event log.

Next to each frame lie the events that it tells of, for subscribers that project a run onto other protocols. An event
that no stream mode shows lies with the next frame.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from app.base.offload import BULK, offload
from app.domain.event_id import EventId
from app.domain.events import Event, InputApplied, StepCommitted
from app.domain.state import Values

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of frames that a feed buffers for late or slow subscribers."""


CHUNK_BYTES = 256 * 1024
"""Bytes of frames in one chunk; a larger frame is a chunk by itself."""


class Frame(NamedTuple):
    """The bytes of one server-sent event, and the stream mode it belongs to."""

    mode: str
    data: bytes

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.data)


class DeferredFrame:
    """A frame with ``values``, encoded by ``make`` when a subscriber first needs it; most runs have none that does."""

    __slots__ = ("_data", "_lock", "_make", "mode", "size", "values")

    def __init__(self, mode: str, values: Values, make: Callable[[], bytes]) -> None:
        self.mode = mode
        self.values: Values | None = values
        self.size = values.size
        self._make: Callable[[], bytes] | None = make
        self._data = b""
        self._lock: asyncio.Lock | None = None

    @property
    def data(self) -> bytes:
        """The bytes, encoded on first access."""
        if self._make is not None:
            self._encoded(self._make())
        return self._data

    async def encode(self) -> None:
        """Encode a large frame off the event loop; once, however many subscribers ask."""
        if self._make is None or self.size < BULK:
            return
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._make is not None:
                self._encoded(await offload(self.size, self._make))

    def _encoded(self, data: bytes) -> None:
        self._data, self._make, self.values = data, None, None


AnyFrame = Frame | DeferredFrame

FrameEvents = Sequence[Event] | bytes
"""The events that lie with a frame; as JSON, if they came from another process and no subscriber has needed them."""

_encode = msgspec.json.Encoder().encode
decode_events = msgspec.json.Decoder(list[Event]).decode


def _decoded(events: FrameEvents) -> Sequence[Event]:
    return events if not isinstance(events, bytes) else decode_events(events) if events else ()


def _shows_values(event: Event, checkpoint_id: str) -> bool:
    """Return whether a frame with the values at a checkpoint, and nothing more, is made of ``event``."""
    match event:
        case StepCommitted() | InputApplied(read=True):
            return event.checkpoint_id == checkpoint_id
        case _:
            return False


def encode_events(found: Iterable[FrameEvents]) -> list[bytes]:
    """Encode the events of frames as JSON, to send them to another process."""
    return [events if isinstance(events, bytes) else _encode(events) if events else b"" for events in found]


async def encode_large(frames: Iterable[AnyFrame]) -> None:
    """Encode those of ``frames`` that would block the event loop."""
    for frame in frames:
        if isinstance(frame, DeferredFrame):
            await frame.encode()


def values_in(frame: AnyFrame) -> bytes:
    """Return the JSON of a frame with values."""
    data = frame.data
    return data[data.index(b"data: ") + 6 : data.rindex(b"\r\nid: ")]


class FeedTruncated(Exception):
    """The subscriber fell behind the buffer: resume from the event log."""


class Feed:
    """The frames of one run under one owner, numbered from ``epoch``-1 (epoch 0: no owner known yet).

    The event log has the frames up to ``in_log``. ``on_change`` is called when there is something new, while a process
    with subscribers wants to know. ``has_events``: whether the owner sends the events of its frames.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.closed = False
        self.finished = False
        self.in_log = 0
        self.on_change: Callable[[], None] | None = None
        self.has_events = True
        self._has_large = False
        self._frames: list[AnyFrame] = []
        self._events: list[FrameEvents] = []
        self._frameless: list[Event] = []
        self._evicted = 0
        self._bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def last(self) -> EventId:
        """The id of the newest frame."""
        return EventId(self.epoch, self._evicted + len(self._frames))

    def open(self, epoch: int, seq: int = 0) -> None:
        """Set the owner: the next frame is ``epoch``-(``seq`` + 1); earlier ones are in the event log."""
        self.epoch = epoch
        self.in_log = self._evicted = seq
        self._wake()

    def after(self, seq: int) -> tuple[int, list[AnyFrame]]:
        """Return the buffered frames after number ``seq``, and the number before the first of them."""
        first = max(seq, self._evicted)
        return first, self._frames[first - self._evicted :]

    def announce(self, event: Event, frames: Collection[AnyFrame]) -> None:
        """Append the ``frames`` of ``event`` and wake the subscribers; an event without frames waits for the next."""
        if not frames:
            self._frameless.append(event)
            return
        if self._frameless:
            self._events.append((*self._frameless, event))
            self._frameless = []
        else:
            self._events.append((event,))
        self.push(frames)

    def push(self, frames: Collection[AnyFrame], events: "Sequence[FrameEvents]" = ()) -> None:
        """Append ``frames`` and wake the subscribers; ``events`` are those of the first frames, frame by frame."""
        self._frames.extend(frames)
        self._events.extend(events)
        while len(self._events) < len(self._frames):
            self._events.append(())
        for frame in frames:
            self._bytes += frame.size
            if frame.size >= BULK:
                self._has_large = True
        if self._bytes > MAX_BYTES:
            self._evict()
        self._wake()

    def stored(self, seq: int) -> None:
        """Record that the event log has the frames up to ``seq``, so that they may be evicted."""
        if seq > self.in_log:
            self.in_log = seq
            if self.on_change is not None:
                self.on_change()

    def close(self, *, finished: bool) -> None:
        """Close the feed: no more frames from this owner; ``finished``: because the run has ended."""
        self.closed = True
        self.finished = finished
        self._wake()

    def _evict(self) -> None:
        drop = 0
        while self._bytes > MAX_BYTES // 2 and self._evicted + drop < self.in_log:
            self._bytes -= self._frames[drop].size
            drop += 1
        del self._frames[:drop], self._events[:drop]
        self._evicted += drop

    def _wake(self) -> None:
        if self.on_change is not None:
            self.on_change()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def changed(self) -> None:
        """Wait for new frames or for the feed to close."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def encode_next(self, after: EventId, modes: Collection[str] | None = None) -> None:
        """Encode the large frames that ``take`` would return, off the event loop."""
        if not self._has_large:
            return
        fresh = self._next(max(self._position(after) - self._evicted, 0))
        await encode_large(frame for frame in fresh if modes is None or frame.mode in modes)

    def _position(self, after: EventId) -> int:
        return after.seq if after.epoch == self.epoch else 0

    def _next(self, at: int) -> list[AnyFrame]:
        """Return the frames from index ``at`` that make one chunk: small ones together, a large one alone, uncopied."""
        size = 0
        for end in range(at, len(self._frames)):
            size += self._frames[end].size
            if size > CHUNK_BYTES:
                return self._frames[at : max(end, at + 1)]
        return self._frames[at:]

    def take(self, after: EventId, modes: Collection[str] | None = None) -> tuple[EventId, bytes] | None:
        """Return what follows ``after`` as (id of the newest frame in it, chunk); None if there is nothing.

        With ``modes``, only frames of these modes and those for all subscribers; the chunk may then be empty. Raises
        ``FeedTruncated`` if frames after ``after`` were evicted.
        """
        position = self._position(after)
        if position < self._evicted:
            raise FeedTruncated
        fresh = self._next(position - self._evicted)
        if not fresh:
            return None
        if modes is None:
            chunk = b"".join([frame.data for frame in fresh])
        else:
            chunk = b"".join([frame.data for frame in fresh if not frame.mode or frame.mode in modes])
        return EventId(self.epoch, position + len(fresh)), chunk

    def take_events(self, after: EventId) -> tuple[EventId, list[Event]] | None:
        """Return (id of the newest frame, events of the frames after ``after``); None if there are none.

        Raises ``FeedTruncated`` if frames after ``after`` were evicted.
        """
        position = self._position(after)
        if position < self._evicted:
            raise FeedTruncated
        events: list[Event] = []
        for at in range(position - self._evicted, len(self._events)):
            found = self._events[at] = _decoded(self._events[at])
            events += found
        newest = self.last
        return (newest, events) if newest.seq > position else None

    def values_frame(self, checkpoint_id: str) -> AnyFrame | None:
        """Return the buffered frame with the values at a checkpoint; None if there is none.

        That of an interrupt is none: it has the open questions too, which the checkpoint has not.
        """
        for at in range(len(self._events) - 1, -1, -1):
            found = self._events[at] = _decoded(self._events[at])
            if any(_shows_values(event, checkpoint_id) for event in found):
                for frame in self._frames[at:]:
                    if frame.mode == "values":
                        return frame
        return None

    def events_after(self, seq: int) -> list[FrameEvents]:
        """Return the events of the frames after number ``seq``."""
        return self._events[max(seq, self._evicted) - self._evicted :]
