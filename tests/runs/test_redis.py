"""Frames go to other processes over Redis; without it, or when it dies, they arrive too."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from app.domain.event_id import START
from app.engine.streams import redis_transport
from app.engine.streams.frame_transport import FrameBatch, FrameTransport
from app.engine.streams.redis_transport import RedisFrameTransport
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from tests.redis import REPLIES, BrokenRedis, RedisServer
from tests.runs.engine import TENANT, Engine, SteeredAgent, engine_on, fetch
from tests.runs.test_processes import RecordingReader, Speaker
from tests.system.services import serving


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def two(database: Database, agent: SteeredAgent, redis: RedisServer) -> AsyncIterator[tuple[Engine, Engine]]:
    """An engine that only follows and one that executes, with a Redis between them."""
    async with (
        engine_on(database, agent, max_runs=0, sweeping=True, redis=redis.url) as api,
        engine_on(database, agent, sweeping=True, redis=redis.url) as worker,
    ):
        yield api, worker


async def follow(api: Engine, speaker: Speaker) -> tuple[RecordingReader, object]:
    run = await api.begin("x", agent="steered", modes=["messages-tuple"])
    reader = RecordingReader(api.streams.follow(TENANT, run.run_id, after=START, modes=None))
    speaker.may.release()
    await reader.until(b"one ")
    return reader, run


async def test_frames_sent_over_redis_leave_nothing_in_the_database(database: Database, redis: RedisServer) -> None:
    speaker = Speaker("one ", "two ", "three ")
    async with two(database, SteeredAgent("steered", speaker.work), redis) as (api, worker):
        reader, _ = await follow(api, speaker)
        before = await fetch(database, "select count(*) from live_frames")
        for word in (b"two ", b"three "):
            speaker.may.release()
            await reader.until(word)
        assert await fetch(database, "select count(*) from live_frames") == before
        speaker.may.release()
        assert (await reader.whole()).endswith(b"\r\n\r\n")
        assert worker.supervisor.active == 0


@pytest.mark.parametrize("trouble", ["stop", "freeze"])
async def test_a_redis_that_dies_mid_stream_costs_no_frame(
    database: Database, redis: RedisServer, trouble: str
) -> None:
    words = [f"word{number} " for number in range(12)]
    speaker = Speaker("one ", *words)
    async with two(database, SteeredAgent("steered", speaker.work), redis) as (api, worker):
        reader, run = await follow(api, speaker)
        for number, word in enumerate(words):
            if number == 4:
                await asyncio.to_thread(getattr(redis, trouble))
            if number == 8 and trouble == "freeze":
                await asyncio.to_thread(redis.thaw)
            if number == 8 and trouble == "stop":
                await asyncio.to_thread(redis.start)
            speaker.may.release()
            await reader.until(word.encode())
        speaker.may.release()
        whole = await reader.whole()
        assert whole == await worker.stream(run)  # type: ignore[arg-type]


async def test_without_its_redis_a_process_is_degraded_and_works(fresh_database_url: str, redis: RedisServer) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none", REDIS_URL=redis.url) as service:

        async def status() -> str:
            carrier = service.services.engine.redis
            assert isinstance(carrier, RedisFrameTransport)
            await carrier.probe()
            checks = (await service.get("/health")).json()["checks"]
            return str(checks["redis"]["status"])

        assert await status() == "healthy"
        await asyncio.to_thread(redis.stop)
        assert await status() == "degraded"
        answer = await service.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert (await service.get("/health/ready")).status_code == 200
        await asyncio.to_thread(redis.start)
        assert await status() == "healthy"


def test_the_address_of_a_redis_is_a_secret() -> None:
    assert "pass" not in repr(Secret("redis://user:pass@host/0"))


class Fallback:
    """What sends the frames that Redis does not."""

    def __init__(self) -> None:
        self.sent: list[FrameBatch] = []

    async def publish(self, batches: Sequence[FrameBatch]) -> None:
        self.sent += batches


@pytest.mark.parametrize("reply", sorted(REPLIES.keys() - {"too short"}))
async def test_frames_go_another_way_if_redis_answers_with_something_else(
    reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that publishes them is essential: an error of it would end the process."""
    monkeypatch.setattr(redis_transport, "REST_SECONDS", 0)
    server, fallback = BrokenRedis(), Fallback()
    server.reply = REPLIES[reply]
    transport = RedisFrameTransport(Secret(await server.start()), cast("FrameTransport", fallback))
    batch = FrameBatch(TENANT, TENANT, 1, 1, [])
    await transport.publish([batch])
    await transport.probe()
    assert fallback.sent == [batch]
    assert transport.trouble
    await redis_transport._close(transport._redis, transport._listener)
    await server.stop()
