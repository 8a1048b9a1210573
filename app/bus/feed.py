"""A run's frames in memory: one writer, any number of readers, each a cursor of its own.

A frame is ready bytes with the stream mode it belongs to (``""`` for frames that every reader gets). Readers are woken
once for all that is there and get it as one chunk; a slow reader costs nothing but its place. Frames beyond
``MOST_BYTES`` are forgotten oldest first: a reader that still wants them is sent to the event log.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

MOST_BYTES = 4 * 1024 * 1024
"""Bytes of frames that a feed keeps for readers that come late or read slowly."""


CHUNK_BYTES = 256 * 1024
"""Bytes of frames that a reader is given at once; a frame that has more is given by itself."""


class EventId(NamedTuple):
    """The id of a frame, ordered: ``epoch`` of the owner, ``seq`` within it (docs/decisions/0001)."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = EventId(0, 0)
"""Before every frame."""

FROM_THE_START = frozenset({"-1", "0-0", "-"})
"""What clients send as the last id to get everything."""


class Frame(NamedTuple):
    """Bytes of one server-sent event, and the stream mode it belongs to."""

    mode: str
    data: bytes


class Behind(Exception):
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
        self._frames: list[Frame] = []
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

    def after(self, seq: int) -> tuple[int, list[Frame]]:
        """The frames after number ``seq`` that are still here, and the number before the first of them."""
        first = max(seq, self._forgotten)
        return first, self._frames[first - self._forgotten :]

    def push(self, frames: Collection[Frame]) -> None:
        """Add ``frames`` in order and wake the readers."""
        self._frames.extend(frames)
        self._bytes += sum(len(frame.data) for frame in frames)
        if self._bytes > MOST_BYTES:
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
        while self._bytes > MOST_BYTES // 2 and self._forgotten + drop < self.in_log:
            self._bytes -= len(self._frames[drop].data)
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

    def _next(self, at: int) -> list[Frame]:
        """The frames from ``at`` on that make one chunk: small ones together, a large one by itself, uncopied."""
        size = 0
        for end in range(at, len(self._frames)):
            size += len(self._frames[end].data)
            if size > CHUNK_BYTES:
                return self._frames[at : max(end, at + 1)]
        return self._frames[at:]

    def take(self, after: EventId, modes: Collection[str] | None = None) -> tuple[EventId, bytes] | None:
        """What follows ``after``: (id of the newest frame in it, chunk); None when nothing does.

        With ``modes``, only frames of these modes and those for everybody; the chunk may then be empty.
        Raises ``Behind`` when frames after ``after`` were forgotten.
        """
        place = after.seq if after.epoch == self.epoch else 0
        if place < self._forgotten:
            raise Behind
        fresh = self._next(place - self._forgotten)
        if not fresh:
            return None
        if modes is None:
            chunk = b"".join([frame.data for frame in fresh])
        else:
            chunk = b"".join([frame.data for frame in fresh if not frame.mode or frame.mode in modes])
        return EventId(self.epoch, place + len(fresh)), chunk
