"""Frame transport over Redis pub/sub: half a millisecond to a subscriber instead of two.

Redis may be slow, flushed or down at any time: batches without a Redis subscriber go through PostgreSQL at once, and
subscribers detect lost batches and read the event log. Nothing is stored in Redis.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from app.base.ids import new_id
from app.base.tasks import Tasks, run_concurrently
from app.base.wakeup import WakeUp
from app.engine.streams.frame_transport import FrameBatch, FrameTransport, RemoteReaders
from app.infra.redis.connection import FAILURES, LOOK_SECONDS, SECONDS, RedisAddress, Urls, opened
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

REST_SECONDS = 1.0
"""How long Redis is avoided after a failure."""

BEAT_SECONDS = 2.0
"""Interval of a process's messages to itself, which prove that its subscriptions work."""

UNRESPONSIVE_SECONDS = 5.0
"""Seconds without any message after which the connection is replaced."""

_PREFIX = b"agent-service:frames:"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(FrameBatch).decode


def _channel(run_id: UUID) -> bytes:
    return _PREFIX + run_id.bytes


class RedisFrameTransport:
    """Implements ``app.engine.streams.frame_transport.FrameTransport``; ``fallback`` sends what Redis cannot."""

    def __init__(self, url: Secret | Urls, fallback: FrameTransport) -> None:
        self._address = RedisAddress(url)
        self._open()
        self._fallback = fallback
        self._own = b"agent-service:beat:" + new_id().bytes
        self._wanted: set[UUID] = set()
        self._changed = WakeUp()
        self._resting_until = 0.0
        self._tasks = Tasks("redis_relay")
        self.trouble = ""
        self.memory: tuple[int, int] = (0, 0)
        """Bytes used at the last probe, and the configured maximum; 0: unknown or unlimited."""

    def start(self, readers: RemoteReaders) -> None:
        """Start receiving the frames that ``readers`` want."""
        self._readers = readers
        self._fallback.start(readers)
        self._tasks.repeat(self._connected, REST_SECONDS, name="listen")
        self._tasks.repeat(self._follow, LOOK_SECONDS, name="follow")

    async def aclose(self) -> None:
        """Stop and close the connections."""
        await self._tasks.aclose()
        await self._fallback.aclose()
        await _close(self._redis, self._listener)

    def subscribe(self, run_id: UUID) -> None:
        """Subscribe to ``run_id``'s frames."""
        self._wanted.add(run_id)
        self._changed.set()

    def unsubscribe(self, run_id: UUID) -> None:
        """Unsubscribe from ``run_id``'s frames."""
        self._wanted.discard(run_id)
        self._changed.set()

    async def publish(self, batches: Sequence[FrameBatch]) -> None:
        """Publish over Redis; batches without subscribers go through PostgreSQL. Raises ``Unavailable``."""
        left: Sequence[FrameBatch] = batches
        if time.monotonic() >= self._resting_until:
            try:
                async with asyncio.timeout(SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                    for batch in batches:
                        pipeline.publish(_channel(batch.run_id), _pack(batch))
                    subscriber_counts = map(int, await pipeline.execute())  # an int, if it is Redis that answers
                left = [batch for batch, listeners in zip(batches, subscriber_counts, strict=True) if not listeners]
            except FAILURES as error:
                self._rest(error)
        if left:
            await self._fallback.publish(left)

    async def probe(self) -> None:
        """Check whether Redis responds, and how much memory it uses."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._redis.ping()
                await self._measure()
        except FAILURES as error:
            self._rest(error)
        else:
            if self.trouble:
                log.info("redis_found")
            self.trouble = ""

    async def _measure(self) -> None:
        with contextlib.suppress(ResponseError):  # INFO may be forbidden
            memory_info = await self._redis.info("memory")
            self.memory = int(memory_info.get("used_memory", 0)), int(memory_info.get("maxmemory", 0))

    def _rest(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + REST_SECONDS
        if not self.trouble:
            log.warning("redis_lost", error=type(error).__name__)
        self.trouble = f"Redis does not answer ({type(error).__name__})"

    def _open(self) -> None:
        self._redis = opened(self._address.now)
        self._listener = opened(self._address.now, socket_timeout=None, health_check_interval=5)

    async def _follow(self) -> None:
        """Reconnect if the address has changed and Redis responds there. Lost batches are read from the event log."""
        if await self._address.moved():
            before = self._redis, self._listener
            self._open()
            await _close(*before)

    async def _connected(self) -> None:
        try:
            async with self._listener.pubsub() as pubsub:
                async with asyncio.timeout(UNRESPONSIVE_SECONDS):
                    await pubsub.subscribe(self._own)  # at least one channel is required
                await run_concurrently(self._listen(pubsub), self._subscribe(pubsub), self._beat())
        except* FAILURES as failed:
            self._rest(failed.exceptions[0])

    async def _listen(self, pubsub: PubSub) -> None:
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(UNRESPONSIVE_SECONDS) as deadline:
            async for message in pubsub.listen():
                deadline.reschedule(now() + UNRESPONSIVE_SECONDS)
                if message["type"] == "message" and message["channel"] != self._own:
                    self._readers.receive(_unpack(message["data"]))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(*FAILURES):  # the listener times out without it
                await self._redis.publish(self._own, b"")

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Keep the subscriptions in line with what is wanted."""
        has: set[UUID] = set()
        while True:
            wanted = set(self._wanted)
            if new := wanted - has:
                await pubsub.subscribe(*map(_channel, new))
            if old := has - wanted:
                await pubsub.unsubscribe(*map(_channel, old))
            if not has:
                self._readers.missed()  # frames may have been lost before this connection
            has = wanted
            await self._changed.wait()


async def _close(*clients: Redis) -> None:
    for client in clients:
        with contextlib.suppress(*FAILURES):
            await client.aclose()
