"""Token buckets, in a process and in Redis: with the same results."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from app.infra.redis import connection
from app.infra.secrets.secret import Secret
from app.infra.settings import LimitSettings
from app.security.limits import redis_buckets
from app.security.limits.limiter import Limiter
from app.security.limits.redis_buckets import SharedBuckets
from app.security.limits.token_buckets import BucketResult, BucketTake, LocalBuckets
from tests.access.clock import Clock
from tests.redis import REPLIES, BrokenRedis, RedisServer

Taking = Callable[[Sequence[BucketTake]], Awaitable[BucketResult]]


@pytest.fixture
def redis(tmp_path: Path) -> "RedisServer":
    return RedisServer(tmp_path)


@pytest.fixture
def long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for Redis: on a busy machine, an answer after a quarter of a second is not a failure of Redis."""
    monkeypatch.setattr(connection, "SECONDS", 20.0)
    monkeypatch.setattr(redis_buckets, "SECONDS", 20.0)


@pytest.fixture(params=["local", "shared"])
async def taking(request: pytest.FixtureRequest, tmp_path: Path, long_timeout: None) -> AsyncIterator[Taking]:
    """Both kinds of buckets."""
    if request.param == "local":
        local = LocalBuckets(time.monotonic)

        async def take(takes: Sequence[BucketTake]) -> BucketResult:
            return local.take(takes)

        yield take
        return
    server = RedisServer(tmp_path)
    shared = SharedBuckets(Secret(server.url), "one")

    async def take_shared(takes: Sequence[BucketTake]) -> BucketResult:
        verdict = await shared.take(takes)
        assert verdict is not None
        return verdict

    yield take_shared
    await shared.aclose()
    server.stop()


async def test_a_bucket_gives_what_it_holds_and_no_more(taking: Taking) -> None:
    take = BucketTake("key", uuid4().hex, limit=10, window=3600)
    verdicts = [await taking([take]) for _ in range(12)]
    assert [verdict.refused for verdict in verdicts] == [None] * 10 + [0, 0]
    assert [round(verdict.left[0]) for verdict in verdicts] == [*range(9, -1, -1), 0, 0]
    assert 350 < verdicts[-1].wait <= 360
    assert 3590 < verdicts[-1].reset[0] <= 3600


async def test_a_request_that_one_bucket_refuses_takes_nothing_from_the_others(taking: Taking) -> None:
    small, large = (
        BucketTake("key", uuid4().hex, limit=1, window=3600),
        BucketTake("tenant", uuid4().hex, limit=5, window=3600),
    )
    assert (await taking([large, small])).refused is None
    for _ in range(3):
        assert (await taking([large, small])).refused == 1
    assert round((await taking([large])).left[0]) == 3


async def test_a_weight_takes_several_units_at_once(taking: Taking) -> None:
    name = uuid4().hex
    assert (await taking([BucketTake("tokens", name, limit=100, window=3600, weight=60)])).refused is None
    refused = await taking([BucketTake("tokens", name, limit=100, window=3600, weight=60)])
    assert refused.refused == 0
    assert 700 < refused.wait <= 720
    assert (await taking([BucketTake("tokens", name, limit=100, window=3600, weight=40)])).refused is None


async def test_a_bucket_fills_while_time_passes(taking: Taking) -> None:
    take = BucketTake("key", uuid4().hex, limit=2, window=0.2)
    assert [(await taking([take])).refused for _ in range(3)] == [None, None, 0]
    wait = (await taking([take])).wait
    assert 0 < wait <= 0.1
    while (verdict := await taking([take])).refused is not None:  # noqa: ASYNC110  it tells how long to wait
        await asyncio.sleep(verdict.wait)


def test_a_share_of_a_limit_fills_as_much_slower_and_gives_one_at_least() -> None:
    clock = Clock()
    buckets = LocalBuckets(lambda: clock.seconds)
    take = BucketTake("key", "a", limit=60)
    assert sum(buckets.take([take], share=1 / 3).refused is None for _ in range(60)) == 20
    clock.seconds += 3
    assert sum(buckets.take([take], share=1 / 3).refused is None for _ in range(60)) == 1
    rare = BucketTake("key", "b", limit=1)
    assert [buckets.take([rare], share=1 / 3).refused for _ in range(2)] == [None, 0]
    clock.seconds += 180
    assert buckets.take([rare], share=1 / 3).refused is None


def test_usage_is_charged_beyond_the_bucket_and_can_be_given_back() -> None:
    clock = Clock()
    buckets = LocalBuckets(lambda: clock.seconds)
    take = BucketTake("tokens", "a", limit=60)
    buckets.charge(BucketTake("tokens", "a", limit=60, weight=90))
    assert buckets.take([take]).refused == 0
    buckets.charge(BucketTake("tokens", "a", limit=60, weight=-500))
    assert buckets.take([take]).refused is None, "more than full is full"
    assert sum(buckets.take([take]).refused is None for _ in range(100)) == 59


@pytest.mark.usefixtures("long_timeout")
async def test_processes_together_give_what_the_limit_says(redis: RedisServer) -> None:
    """Three processes at once grant exactly as many as one."""
    processes = [SharedBuckets(Secret(redis.url), str(number)) for number in range(3)]
    take = BucketTake("llm", "all", limit=300, window=3600)
    try:
        verdicts = await asyncio.gather(*(one.take([take]) for _ in range(200) for one in processes))
        granted = [verdict for verdict in verdicts if verdict is not None and verdict.refused is None]
        assert len(granted) == 300
        assert all(verdict is not None for verdict in verdicts)
    finally:
        for one in processes:
            await one.aclose()
        redis.stop()


async def test_without_redis_each_process_grants_its_share(redis: RedisServer) -> None:
    """And the whole limit once it is back."""
    limiters = [Limiter(LimitSettings(), SharedBuckets(Secret(redis.url), str(number))) for number in range(3)]
    take = BucketTake("llm", "away", limit=30, window=3600)
    for limiter in limiters:
        limiter.start()
    try:
        while {limiter._part() for limiter in limiters} != {1 / 3}:
            for limiter in limiters:
                assert limiter._shared is not None
                await limiter._shared._count()  # what it does every five seconds
        redis.stop()
        verdicts = [await limiter.take([take]) for limiter in limiters for _ in range(20)]
        assert sum(verdict.refused is None for verdict in verdicts) == 30
        redis.start()
        shared = limiters[0]._shared
        assert shared is not None
        while await shared.take([take]) is None:  # noqa: ASYNC110  until it is left alone no longer
            await asyncio.sleep(0.02)
        assert (await limiters[1].take([take])).refused is None
    finally:
        for limiter in limiters:
            await limiter.aclose()
        redis.stop()


async def test_a_redis_that_does_not_answer_costs_a_quarter_of_a_second_once(redis: RedisServer) -> None:
    shared = SharedBuckets(Secret(redis.url), "one")
    take = BucketTake("key", "frozen", limit=1000)
    assert await shared.take([take]) is not None
    redis.freeze()
    try:
        began = time.monotonic()
        assert [await shared.take([take]) for _ in range(50)] == [None] * 50
        assert time.monotonic() - began < 2.0
    finally:
        redis.thaw()
        await shared.aclose()
        redis.stop()


@pytest.mark.parametrize("reply", REPLIES)
async def test_a_redis_that_answers_with_something_else_keeps_no_request_waiting(
    reply: str, long_timeout: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is replaced, as another server may answer at the address by then."""
    monkeypatch.setattr(redis_buckets, "REST_SECONDS", 0)
    server = BrokenRedis()
    server.reply = REPLIES[reply]
    shared, take = SharedBuckets(Secret(await server.start()), "one"), BucketTake("key", "k", limit=10)
    async with asyncio.timeout(15):
        for number in range(1, 4):
            assert await asyncio.gather(*(shared.take([take]) for _ in range(3))) == [None] * 3
            assert server.connections >= number
        server.reply = b"*3\r\n:-1\r\n$1\r\n0\r\n$1\r\n0\r\n"
        verdict = await shared.take([take])
    assert verdict is not None
    assert verdict.refused is None
    await shared.aclose()
    await server.stop()
