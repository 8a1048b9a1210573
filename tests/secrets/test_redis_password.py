"""The password of Redis is rotated under traffic, in Redis first or in the program first."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from app.engine.streams.frame_transport import FrameBatch, FramePosition
from app.engine.streams.redis_transport import RedisFrameTransport
from app.infra.redis.connection import RedisAddress
from app.infra.secrets.secret import Secret
from app.security.limits.redis_buckets import SharedBuckets
from app.security.limits.token_buckets import BucketTake
from tests.redis import RedisServer

TAKE = BucketTake(key="test", name="test", limit=1000, window=60.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def admin(server: RedisServer) -> AsyncIterator[Any]:
    """An operator's connection, with the user ``app`` and its first password."""
    client: Any = Redis.from_url(server.url)
    await client.execute_command("ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all")
    yield client
    await client.aclose()


class Urls:
    """The addresses of a file."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.password = "first"

    def __call__(self) -> Sequence[Secret]:
        return [Secret(self._server.url.replace("//", f"//app:{self.password}@"))]


class Otherwise:
    """Records batches sent through PostgreSQL."""

    def __init__(self) -> None:
        self.chunks: list[FrameBatch] = []

    def start(self, readers: object) -> None: ...

    async def aclose(self) -> None: ...

    def subscribe(self, run_id: object) -> None: ...

    def unsubscribe(self, run_id: object) -> None: ...

    async def publish(self, chunks: Sequence[FrameBatch]) -> None:
        self.chunks += chunks


class Readers:
    """Records received batches."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[FrameBatch] = asyncio.Queue()

    def positions(self, run_ids: Iterable[UUID]) -> list[FramePosition]:
        return []

    def receive(self, chunk: FrameBatch) -> None:
        self.received.put_nowait(chunk)

    def missed(self) -> None:
        pass


async def new_password(admin: Any, urls: Urls, *, file_first: bool, follow: object) -> None:
    """Rotate, and have the program check in the middle and at the end, as it does every five seconds."""
    steps = [lambda: setattr(urls, "password", "second"), None]
    for step in steps if file_first else reversed(steps):
        if step is None:
            await admin.execute_command("ACL", "SETUSER", "app", ">second", "<first")
        else:
            step()
        await follow()  # type: ignore[operator]


@pytest.mark.parametrize("file_first", [True, False])
async def test_limits_work_while_the_password_is_rotated(server: RedisServer, admin: Any, file_first: bool) -> None:
    urls = Urls(server)
    buckets = SharedBuckets(urls, "one")
    assert await buckets.take([TAKE]) is not None
    taken: list[bool] = []

    async def look() -> None:
        await buckets._count()
        taken.append(await buckets.take([TAKE]) is not None)

    await new_password(admin, urls, file_first=file_first, follow=look)
    taken.append(await buckets.take([TAKE]) is not None)
    assert all(taken)
    assert await admin.execute_command("CLIENT", "KILL", "USER", "app") >= 1
    assert await buckets.take([TAKE]) is None  # the connection broke, and Redis is not used for a second
    buckets._paused_until = 0.0
    assert await buckets.take([TAKE]) is not None  # reconnected with the new password
    await buckets.aclose()


@pytest.mark.parametrize("file_first", [True, False])
async def test_frames_arrive_while_the_password_is_rotated(server: RedisServer, admin: Any, file_first: bool) -> None:
    urls, readers, otherwise = Urls(server), Readers(), Otherwise()
    carrier = RedisFrameTransport(urls, otherwise)
    carrier.start(readers)
    run_id = uuid4()
    carrier.subscribe(run_id)
    chunk = FrameBatch(
        tenant_id=uuid4(), run_id=run_id, epoch=1, seq=1, frames=[], in_log=0, closed=False, finished=False
    )

    async def arrives() -> None:
        """By Redis, once subscribed; until then through PostgreSQL, without loss."""
        while readers.received.empty():
            await carrier.publish([chunk])
            await asyncio.sleep(0.01)
        await readers.received.get()

    async with asyncio.timeout(20):
        await arrives()
        await new_password(admin, urls, file_first=file_first, follow=carrier._follow)
        await admin.execute_command("CLIENT", "KILL", "USER", "app")
        while not readers.received.empty():
            readers.received.get_nowait()
        carrier._resting_until = 0.0
        await arrives()
    await carrier.aclose()


async def test_an_address_that_does_not_answer_leaves_the_previous_one_in_use(server: RedisServer, admin: Any) -> None:
    urls = Urls(server)
    address = RedisAddress(urls)
    before = address.now
    urls.password = "wrong"
    assert not await address.moved()
    assert address.now == before
    urls.password = "first"
    assert not await address.moved()
