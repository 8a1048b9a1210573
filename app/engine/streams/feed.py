"""A run's frames in memory: one writer, any number of readers, each a cursor of its own.

A frame is ready bytes with the stream mode it belongs to (``""`` for frames that every reader gets). Readers are woken
once for all that is there and get it as one chunk; a slow reader costs nothing but its place. Frames beyond
``MAX_BYTES`` are forgotten oldest first: a reader that still wants them is sent to the event log.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from app.base.offload import BULK, offload
from app.domain.event_id import EventId
from app.domain.state import Values

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of frames that a feed keeps for readers that come late or read slowly."""


CHUNK_BYTES = 256 * 1024
"""Bytes of frames that a reader is given at once; a frame that has more is given by itself."""


class Frame(NamedTuple):
    """Bytes of one server-sent event, and the stream mode it belongs to."""

    mode: str
    data: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.data)


class DeferredFrame:
    """A frame with ``values`` in it, which ``make`` encodes once a reader wants it: most runs have no such reader."""

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
        """Its bytes, encoded the first time."""
        if self._make is not None:
            self._encoded(self._make())
        return self._data

    async def encode(self) -> None:
        """Encode it, beside the event loop if it is large; once, however many readers ask."""
        if self._make is None or self.size < BULK:
            return
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._make is not None:
                self._encoded(await offload(self.size, self._make))

    def _encoded(self, data: bytes) -> None:
        self._data, self._make, self.values = data, None, None


AnyFrame = Frame | DeferredFrame


async def encode_large(frames: Iterable[AnyFrame]) -> None:
    """Encode those of ``frames`` whose ``data`` would keep the event loop waiting."""
    for frame in frames:
        if isinstance(frame, DeferredFrame):
            await frame.encode()


class FeedTruncated(Exception):
    """The frames after this reader's place are forgotten here: read them from the event log."""


class Feed:
    """The frames of one run under one owner, numbered from ``epoch``-1 (epoch 0: nothing is known of an owner yet).

    The event log holds them up to ``in_log``. ``outlet`` is called when there is something new, while a reader in
    another process wants to know.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.closed = False
        self.finished = False
        self.in_log = 0
        self.outlet: Callable[[], None] | None = None
        self._has_large = False
        self._frames: list[AnyFrame] = []
        self._forgotten = 0
        self._bytes = 0
        self._readers: set[asyncio.Future[None]] = set()

    @property
    def last(self) -> EventId:
        """The id of the newest frame."""
        return EventId(self.epoch, self._forgotten + len(self._frames))

    def open(self, epoch: int, seq: int = 0) -> None:
        """The run has an owner: its next frame is ``epoch``-(``seq`` + 1); those before are in the event log."""
        self.epoch = epoch
        self.in_log = self._forgotten = seq
        self._wake()

    def after(self, seq: int) -> tuple[int, list[AnyFrame]]:
        """The frames after number ``seq`` that are still here, and the number before the first of them."""
        first = max(seq, self._forgotten)
        return first, self._frames[first - self._forgotten :]

    def push(self, frames: Collection[AnyFrame]) -> None:
        """Add ``frames`` in order and wake the readers."""
        self._frames.extend(frames)
        for frame in frames:
            self._bytes += frame.size
            if frame.size >= BULK:
                self._has_large = True
        if self._bytes > MAX_BYTES:
            self._forget()
        self._wake()

    def stored(self, seq: int) -> None:
        """The event log has the frames up to ``seq`` now, so they may be forgotten here."""
        if seq > self.in_log:
            self.in_log = seq
            if self.outlet is not None:
                self.outlet()

    def close(self, *, finished: bool) -> None:
        """No more frames will come from this owner; ``finished`` tells whether the run has ended."""
        self.closed = True
        self.finished = finished
        self._wake()

    def _forget(self) -> None:
        drop = 0
        while self._bytes > MAX_BYTES // 2 and self._forgotten + drop < self.in_log:
            self._bytes -= self._frames[drop].size
            drop += 1
        del self._frames[:drop]
        self._forgotten += drop

    def _wake(self) -> None:
        if self.outlet is not None:
            self.outlet()
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)
        self._readers.clear()

    async def changed(self) -> None:
        """Wait until frames come or the feed closes."""
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.add(reader)
        try:
            await reader
        finally:
            self._readers.discard(reader)

    async def encode_next(self, after: EventId, modes: Collection[str] | None = None) -> None:
        """Encode the large frames of what ``take`` would give, beside the event loop."""
        if not self._has_large:
            return
        fresh = self._next(max(self._place(after) - self._forgotten, 0))
        await encode_large(frame for frame in fresh if modes is None or frame.mode in modes)

    def _place(self, after: EventId) -> int:
        return after.seq if after.epoch == self.epoch else 0

    def _next(self, at: int) -> list[AnyFrame]:
        """The frames from ``at`` on that make one chunk: small ones together, a large one by itself, uncopied."""
        size = 0
        for end in range(at, len(self._frames)):
            size += self._frames[end].size
            if size > CHUNK_BYTES:
                return self._frames[at : max(end, at + 1)]
        return self._frames[at:]

    def take(self, after: EventId, modes: Collection[str] | None = None) -> tuple[EventId, bytes] | None:
        """What follows ``after``: (id of the newest frame in it, chunk); None when nothing does.

        With ``modes``, only frames of these modes and those for everybody; the chunk may then be empty.
        Raises ``FeedTruncated`` when frames after ``after`` were forgotten.
        """
        place = self._place(after)
        if place < self._forgotten:
            raise FeedTruncated
        fresh = self._next(place - self._forgotten)
        if not fresh:
            return None
        if modes is None:
            chunk = b"".join([frame.data for frame in fresh])
        else:
            chunk = b"".join([frame.data for frame in fresh if not frame.mode or frame.mode in modes])
        return EventId(self.epoch, place + len(fresh)), chunk
