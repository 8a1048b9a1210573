"""Frames of live runs from the process that runs them to processes that have readers for them.

A run's frames leave its owner only while somebody elsewhere asks for them (``watch`` signals, repeated while they do).
The first time, everything goes out that the event log does not hold yet, from then on what comes, in chunks that gather
while the one before is on its way. Chunks may be lost: a reader that finds a gap reads the event log and asks again.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.base.errors import Unavailable
from app.base.tasks import Tasks, wait_for
from app.engine.streams.feed import Feed, Frame, encode_large

ASKED_SECONDS = 15.0
"""How long frames go out after they were asked for the last time."""

PUBLISH_SECONDS = 5.0
"""How long it may take to bring chunks on their way, before they are sent again."""

PAUSE_SECONDS = 0.5
"""Before they are."""

IDLE_SECONDS = 30.0
"""How long the outlet sleeps while there is nothing to send."""


class FrameBatch(msgspec.Struct, frozen=True, array_like=True):
    """Frames of one run that follow each other, ``seq`` the number of the first.

    The event log has those up to ``in_log``. ``closed``: no more will come from this owner; ``finished``: because the
    run has ended.
    """

    tenant_id: UUID
    run_id: UUID
    epoch: int
    seq: int
    frames: list[Frame]
    in_log: int = 0
    closed: bool = False
    finished: bool = False

    @property
    def last(self) -> int:
        """The number of the last frame (of the first, when there is none)."""
        return self.seq + max(len(self.frames) - 1, 0)


class FramePosition(NamedTuple):
    """The frame that a reader of a run wants next."""

    tenant_id: UUID
    run_id: UUID
    epoch: int
    seq: int


class RemoteReaders(Protocol):
    """Those in this process who read runs of others."""

    def places(self, run_ids: Iterable[UUID]) -> list[FramePosition]:
        """Where the readers of those of ``run_ids`` are that somebody reads here."""
        ...

    def receive(self, chunk: FrameBatch) -> None:
        """Frames have come."""
        ...

    def missed(self) -> None:
        """Frames may have been lost: compare with the event log."""
        ...


class FrameTransport(Protocol):
    """Takes chunks to other processes and brings theirs."""

    def start(self, readers: RemoteReaders) -> None:
        """Begin to bring what ``readers`` want."""
        ...

    async def aclose(self) -> None:
        """Stop."""
        ...

    def want(self, run_id: UUID) -> None:
        """Somebody reads ``run_id`` here."""
        ...

    def unwant(self, run_id: UUID) -> None:
        """Nobody does any more."""
        ...

    async def publish(self, chunks: Sequence[FrameBatch]) -> None:
        """Bring ``chunks`` on their way. Raises ``Unavailable`` when that fails."""
        ...


class FramePublisher:
    """What of this process's feeds goes to others."""

    def __init__(self, carrier: FrameTransport) -> None:
        self._carrier = carrier
        self._tasks = Tasks("outlet")
        self._open: dict[UUID, PublishedFeed] = {}
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin to send."""
        self._tasks.repeat(self._send, 0, name="send", essential=True, back_off=PAUSE_SECONDS)

    async def aclose(self) -> None:
        """Send what waits and stop."""
        await self._tasks.aclose()
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(1):
                await self._flush()

    def ask(self, tenant_id: UUID, run_id: UUID, feed: Feed, *, again: bool = False) -> None:
        """Record that another process reads ``feed``, the one of the live run ``run_id``.

        ``again``: frames were lost on the way, so send those that the event log does not hold once more.
        """
        watched = self._open.get(run_id)
        if watched is None or watched.feed is not feed:
            watched = self._open[run_id] = PublishedFeed(tenant_id, run_id, feed)
            feed.outlet = self._wake.set
            self._wake.set()
        elif again:
            watched.rewind()
            self._wake.set()
        watched.until = time.monotonic() + ASKED_SECONDS

    async def _send(self) -> None:
        await wait_for(self._wake, IDLE_SECONDS)
        self._wake.clear()
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._flush()
        except BaseException:  # the next try sends them
            for watched in self._open.values():
                watched.rewind()
            self._wake.set()
            raise

    async def _flush(self) -> None:
        now = time.monotonic()
        chunks = []
        for watched in list(self._open.values()):
            if watched.until < now or watched.feed.closed:
                watched.feed.outlet = None
                del self._open[watched.run_id]
            chunk = await watched.next()
            if chunk is not None:
                chunks.append(chunk)
        if chunks:
            await self._carrier.publish(chunks)


class PublishedFeed:
    """A feed of which frames go to other processes, and how far they have gone."""

    def __init__(self, tenant_id: UUID, run_id: UUID, feed: Feed) -> None:
        self.run_id = run_id
        self.feed = feed
        self.until = 0.0
        self._tenant_id = tenant_id
        self.rewind()

    def rewind(self) -> None:
        """Send everything once more that the event log does not hold."""
        self._sent = self._known = self.feed.in_log
        self._first = True

    async def next(self) -> FrameBatch | None:
        """What has not gone out yet: frames, or that the event log holds more of them."""
        feed = self.feed
        first, frames = feed.after(self._sent)
        if not (frames or self._first or feed.closed or feed.in_log > self._known):
            return None
        self._sent, self._known, self._first = first + len(frames), feed.in_log, False
        state = feed.in_log, feed.closed, feed.finished
        await encode_large(frames)
        ready = [Frame(frame.mode, frame.data) for frame in frames]
        return FrameBatch(self._tenant_id, self.run_id, feed.epoch, first + 1, ready, *state)
