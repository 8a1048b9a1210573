"""Transport of live frames from the process that runs a run to processes with subscribers.

Frames leave their owner only while another process requests them (``watch`` signals, repeated periodically). The first
batch has everything that the event log does not hold yet; later ones have what accumulated while the last one was sent.
Batches may be lost: a subscriber that finds a gap reads the event log and requests a resend.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.base.errors import Unavailable
from app.base.offload import offload
from app.base.tasks import Tasks
from app.base.wakeup import WakeUp
from app.engine.streams.feed import Feed, Frame, encode_events, encode_large

ASKED_SECONDS = 15.0
"""How long frames are sent after the last request for them."""

PUBLISH_SECONDS = 5.0
"""Timeout of publishing batches, after which they are sent again."""

PAUSE_SECONDS = 0.5
"""Maximum backoff before that."""

IDLE_SECONDS = 30.0
"""How long the publisher sleeps if nothing wakes it."""


class FrameBatch(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive frames of one run; ``seq`` is the number of the first.

    The event log has frames up to ``in_log``. ``closed``: no more will follow from this owner; ``finished``: because
    the run has ended. ``events``: the events of each frame, as JSON; None from a process that does not send them.
    """

    tenant_id: UUID
    run_id: UUID
    epoch: int
    seq: int
    frames: list[Frame]
    in_log: int = 0
    closed: bool = False
    finished: bool = False
    events: list[bytes] | None = None

    @property
    def last(self) -> int:
        """Number of the last frame, or of the first if the batch is empty."""
        return self.seq + max(len(self.frames) - 1, 0)


class FramePosition(NamedTuple):
    """The frame that a subscriber of a run needs next."""

    tenant_id: UUID
    run_id: UUID
    epoch: int
    seq: int


class RemoteReaders(Protocol):
    """Subscribers in this process of runs in other processes."""

    def positions(self, run_ids: Iterable[UUID]) -> list[FramePosition]:
        """Return the positions of subscribers here of ``run_ids``."""
        ...

    def receive(self, batch: FrameBatch) -> None:
        """Add received frames."""
        ...

    def missed(self) -> None:
        """Compare with the event log, as frames may have been lost."""
        ...


class FrameTransport(Protocol):
    """Sends frame batches to other processes and receives theirs."""

    def start(self, readers: RemoteReaders) -> None:
        """Start receiving the frames that ``readers`` want."""
        ...

    async def aclose(self) -> None:
        """Stop receiving."""
        ...

    def subscribe(self, run_id: UUID) -> None:
        """Subscribe to ``run_id``'s frames."""
        ...

    def unsubscribe(self, run_id: UUID) -> None:
        """Unsubscribe from ``run_id``'s frames."""
        ...

    async def publish(self, batches: Sequence[FrameBatch]) -> None:
        """Publish ``batches``. Raises ``Unavailable``."""
        ...


class FramePublisher:
    """Publishes frames of this process's feeds to other processes."""

    def __init__(self, transport: FrameTransport) -> None:
        self._transport = transport
        self._tasks = Tasks("frame-publisher")
        self._open: dict[UUID, PublishedFeed] = {}
        self._wake = WakeUp()

    def start(self) -> None:
        """Start publishing."""
        self._tasks.repeat(self._send, 0, name="send", essential=True, back_off=PAUSE_SECONDS)

    async def aclose(self) -> None:
        """Publish what is pending, for up to a second, and stop."""
        await self._tasks.aclose()
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(1):
                await self._flush()

    def ask(self, tenant_id: UUID, run_id: UUID, feed: Feed, *, again: bool = False) -> None:
        """Publish ``feed``, that of the live run ``run_id``, for a while, as another process has subscribers.

        ``again``: frames were lost, so resend those that the event log does not hold.
        """
        published = self._open.get(run_id)
        if published is None or published.feed is not feed:
            published = self._open[run_id] = PublishedFeed(tenant_id, run_id, feed)
            feed.on_change = self._wake.set
            self._wake.set()
        elif again:
            published.rewind()
            self._wake.set()
        published.until = time.monotonic() + ASKED_SECONDS

    async def _send(self) -> None:
        await self._wake.wait(IDLE_SECONDS)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._flush()
        except BaseException:  # send them again
            for published in self._open.values():
                published.rewind()
            self._wake.set()
            raise

    async def _flush(self) -> None:
        now = time.monotonic()
        batches = []
        for published in list(self._open.values()):
            if published.until < now or published.feed.closed:
                published.feed.on_change = None
                del self._open[published.run_id]
            batch = await published.next()
            if batch is not None:
                batches.append(batch)
        if batches:
            await self._transport.publish(batches)


class PublishedFeed:
    """A feed published to other processes, and how far."""

    def __init__(self, tenant_id: UUID, run_id: UUID, feed: Feed) -> None:
        self.run_id = run_id
        self.feed = feed
        self.until = 0.0
        self._tenant_id = tenant_id
        self.rewind()

    def rewind(self) -> None:
        """Start over with the frames that the event log does not hold."""
        self._sent = self._known = self.feed.in_log
        self._first = True

    async def next(self) -> FrameBatch | None:
        """Return the next batch: new frames, or news that the event log holds more of them; None if there is
        neither.
        """
        feed = self.feed
        first, frames = feed.after(self._sent)
        events = feed.events_after(self._sent)
        if not (frames or self._first or feed.closed or feed.in_log > self._known):
            return None
        self._sent, self._known, self._first = first + len(frames), feed.in_log, False
        state = feed.in_log, feed.closed, feed.finished
        await encode_large(frames)
        ready = [Frame(frame.mode, frame.data) for frame in frames]
        encoded = await offload(sum(frame.size for frame in frames), encode_events, events)
        return FrameBatch(self._tenant_id, self.run_id, feed.epoch, first + 1, ready, *state, encoded)
