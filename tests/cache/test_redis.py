"""A Redis that is dead, frozen, slow, full or flushed costs time but breaks nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app.infra.cache.redis_cache import RedisCache, misplaced
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret
from tests.cache.conftest import PATIENCE, cache_on
from tests.redis import RedisServer
from tests.waiting import eventually


async def asks(cache: RedisCache) -> list[bytes | None]:
    await cache.put({b"other": b"x"}, 60)
    return await cache.get([b"a"])


@pytest.mark.parametrize("trouble,restore", [("stop", "start"), ("freeze", "thaw")])
async def test_without_redis_reads_are_immediate_misses_until_it_is_back(
    redis: RedisServer, trouble: str, restore: str
) -> None:
    async with cache_on(redis.url) as cache:
        await cache.put({b"a": b"x"}, 60)
        getattr(redis, trouble)()
        assert await asks(cache) == [None]
        assert "does not answer" in cache.trouble
        asked = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "_client", lambda: pytest.fail("a Redis that is lost is asked"))
            while asked < 1000:
                assert await asks(cache) == [None]
                asked += 1
        getattr(redis, restore)()
        await eventually(lambda: not cache.trouble)
        await cache.put({b"a": b"y"}, 60)
        assert await cache.get([b"a"]) == [b"y"]


async def test_a_flushed_redis_is_empty_without_a_failure(redis: RedisServer) -> None:
    async with cache_on(redis.url) as cache, Redis.from_url(redis.url) as direct:
        await cache.put({b"a": b"x"}, 60)
        await direct.flushall()
        assert await cache.get([b"a"]) == [None]
        assert cache.trouble == ""


async def test_a_redis_that_starts_later_is_found(redis: RedisServer) -> None:
    redis.stop()
    async with cache_on(redis.url) as cache:
        assert await asks(cache) == [None]
        redis.start()
        await eventually(lambda: not cache.trouble)


async def test_a_full_redis_still_serves_its_values(redis: RedisServer) -> None:
    async with cache_on(redis.url) as cache, Redis.from_url(redis.url) as direct:
        await cache.put({b"a": b"x"}, 60)
        await direct.config_set("maxmemory", "1")
        await cache.put({b"b": b"y" * 1000}, 60)
        assert "stores no more values" in cache.trouble
        assert await cache.get([b"a", b"b"]) == [b"x", None]
        await direct.config_set("maxmemory", "0")
        await cache.put({b"b": b"y"}, 60)
        assert cache.trouble == ""


async def test_foreign_values_are_misses_or_bytes(redis: RedisServer) -> None:
    async with cache_on(redis.url) as cache, Redis.from_url(redis.url) as direct:
        await direct.lpush("a", "list")
        await direct.set("b", "text")
        assert await cache.get([b"a", b"b"]) == [None, b"text"]
        await cache.put({b"a": b"ours"}, 60)
        assert await cache.get([b"a"]) == [b"ours"]


@pytest.fixture
async def slow(redis: RedisServer) -> AsyncIterator[tuple[str, list[float]]]:
    """An address of the Redis whose responses are delayed by the seconds in the list."""
    wait = [0.0]

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool) -> None:
        try:
            while data := await reader.read(65536):
                if late:
                    await asyncio.sleep(wait[0])
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(pump(reader, back, late=False), pump(there, writer, late=True))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", wait
    server.close()


async def test_a_late_response_counts_as_lost_and_reaches_no_other_request(
    slow: tuple[str, list[float]],
) -> None:
    url, wait = slow
    async with cache_on(url) as cache:
        await cache.put({b"a": b"x", b"b": b"y"}, 60)
        wait[0] = 2 * PATIENCE
        assert await cache.get([b"a"]) == [None]
        assert "does not answer" in cache.trouble
        wait[0] = 0.0
        await eventually(lambda: not cache.trouble)
        assert await cache.get([b"b"]) == [b"y"]


async def test_a_rotated_address_is_used_at_runtime(redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = RedisServer(tmp_path / "other")
    ring = RotatingSecret(Secret(redis.url))
    cache = RedisCache(ring)
    cache.start()
    try:
        await cache.put({b"a": b"old"}, 60)
        ring.replace([Secret(other.url), Secret(redis.url)])
        assert await cache.get([b"a"]) == [None]
        await cache.put({b"a": b"new"}, 60)
        async with Redis.from_url(other.url) as direct:
            assert await direct.get("a") == b"new"
    finally:
        await cache.aclose()
        other.stop()


async def test_a_password_that_redis_does_not_know_yet_leaves_the_previous_one_in_use(redis: RedisServer) -> None:
    async with Redis.from_url(redis.url) as direct:
        await direct.config_set("requirepass", "old")
    new, old = (f"redis://:{word}@127.0.0.1:{redis.port}/0" for word in ("new", "old"))
    async with cache_on(new, old) as cache:
        await cache.get([b"a"])
        await eventually(lambda: not cache.trouble)
        await cache.put({b"a": b"x"}, 60)
        assert await cache.get([b"a"]) == [b"x"]


async def test_a_redis_without_maxmemory_causes_a_warning_on_start(redis: RedisServer) -> None:
    with capture_logs() as logs:
        async with cache_on(redis.url):
            await eventually(lambda: any(line["event"] == "cache_misplaced" for line in logs))
    assert "no maxmemory" in logs[-1]["detail"]


async def test_sharing_the_redis_that_must_not_lose_data_causes_a_warning(redis: RedisServer) -> None:
    cache = RedisCache(RotatingSecret(Secret(redis.url)), Secret(redis.url.replace("/0", "/1")))
    with capture_logs() as logs:
        await cache.refresh()
    await cache.aclose()
    assert [line["event"] for line in logs] == ["cache_misplaced"]
    assert "the same Redis as REDIS_URL" in logs[0]["detail"]
    assert str(redis.port) not in str(logs)


@pytest.mark.parametrize(
    "server_info,primary,words",
    [
        (
            {"run_id": "1", "maxmemory": 9, "maxmemory_policy": "noeviction"},
            {"run_id": "1"},
            "which evicts nothing",
        ),
        (
            {"run_id": "1", "maxmemory": 0, "maxmemory_policy": "allkeys-lru"},
            {"run_id": "1"},
            "which evicts nothing",
        ),
        ({"run_id": "1", "maxmemory": 9, "maxmemory_policy": "allkeys-lru"}, {"run_id": "1"}, "may evict what limits"),
        ({"run_id": "2", "maxmemory": 9, "maxmemory_policy": "noeviction"}, {"run_id": "1"}, "evicts nothing"),
        ({"run_id": "2", "maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, {}, "no maxmemory"),
        ({"run_id": "2", "maxmemory": 9, "maxmemory_policy": "allkeys-lru"}, {"run_id": "1"}, ""),
    ],
)
def test_an_unsuitable_redis_is_explained(server_info: dict[str, object], primary: dict[str, str], words: str) -> None:
    assert bool(misplaced(server_info, primary)) == bool(words)
    assert words in "".join(misplaced(server_info, primary))
