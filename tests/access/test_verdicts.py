"""The cache of API keys: fast, bounded, fresh, and closed on failure."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

import pytest

from app.base.errors import Unavailable
from app.security.access import api_key_cache
from app.security.access.api_key_cache import ApiKeyCache, KeyDigest
from app.security.access.structs import Principal
from tests.access.clock import Clock

GOOD = b"good"
PRINCIPAL = Principal(UUID(int=1), "1")


class Asked:
    """A fake database that answers once ``free`` is set, and counts lookups."""

    def __init__(self) -> None:
        self.times = 0
        self.running = 0
        self.largest = 0
        self.free = asyncio.Event()
        self.free.set()
        self.failure: Exception | None = None

    async def __call__(self, keys: Sequence[KeyDigest]) -> list[Principal | None]:
        self.times += 1
        self.largest = max(self.largest, len(keys))
        self.running += 1
        try:
            await self.free.wait()
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        return [PRINCIPAL if digest == GOOD else None for _, digest in keys]


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
async def memory(asked: Asked, clock: Clock) -> AsyncIterator[ApiKeyCache]:
    memory = ApiKeyCache(asked, clock)
    yield memory
    await memory.aclose()


@pytest.mark.parametrize("digest, verdict", [(GOOD, PRINCIPAL), (b"bad", None)])
async def test_a_lookup_is_cached_for_less_than_five_seconds(
    memory: ApiKeyCache, asked: Asked, clock: Clock, digest: bytes, verdict: Principal | None
) -> None:
    assert await memory.get("1", digest) == verdict
    assert await memory.get("1", digest) == verdict
    assert asked.times == 1
    clock.seconds += api_key_cache.CACHE_TTL
    assert await memory.get("1", digest) == verdict
    assert asked.times == 2
    assert max(api_key_cache.CACHE_TTL, api_key_cache.LOOK_UP_SECONDS) < 5


async def test_the_ttl_counts_from_the_lookup_and_not_from_a_late_result(
    memory: ApiKeyCache, asked: Asked, clock: Clock
) -> None:
    asked.free.clear()
    first = asyncio.ensure_future(memory.get("1", GOOD))
    await until(lambda: asked.running == 1)
    clock.seconds += api_key_cache.CACHE_TTL
    asked.free.set()
    assert await first == PRINCIPAL
    await memory.get("1", GOOD)
    assert asked.times == 2


async def test_many_requests_with_one_key_share_one_lookup(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(50)]
    await asyncio.sleep(0)
    asked.free.set()
    assert await asyncio.gather(*waiting) == [PRINCIPAL] * 50
    assert asked.times == 1


async def test_a_request_cancelled_during_its_lookup_cancels_no_other(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    first, *others = (asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    asked.free.set()
    assert await asyncio.gather(*others) == [PRINCIPAL] * 4
    assert asked.times == 1


async def test_a_request_cancelled_while_waiting_leaves_the_lookup_alone(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    first, second = (asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    asked.free.set()
    assert await first == PRINCIPAL
    assert asked.times == 1


async def test_a_failed_lookup_reaches_all_waiters_and_is_not_cached(memory: ApiKeyCache, asked: Asked) -> None:
    asked.failure = Unavailable("away")
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(5)]
    await asyncio.sleep(0)
    asked.free.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert asked.times == 1
    asked.failure = None
    assert await memory.get("1", GOOD) == PRINCIPAL


async def test_an_expired_entry_is_not_used_while_lookups_fail(memory: ApiKeyCache, asked: Asked, clock: Clock) -> None:
    await memory.get("1", GOOD)
    asked.failure = Unavailable("away")
    clock.seconds += api_key_cache.CACHE_TTL
    with pytest.raises(Unavailable):
        await memory.get("1", GOOD)


async def test_a_lookup_that_times_out_is_a_failure(
    memory: ApiKeyCache, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key_cache, "LOOK_UP_SECONDS", 0.01)
    asked.free.clear()
    with pytest.raises(Unavailable):
        await memory.get("1", GOOD)


async def test_a_lookup_that_is_slow_to_cancel_delays_no_later_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver takes seconds to close a dead connection; the database is back before."""
    given_up, may_end = asyncio.Event(), asyncio.Event()

    async def ask(_: Sequence[KeyDigest]) -> list[Principal | None]:
        if given_up.is_set():
            return [PRINCIPAL]
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
            await may_end.wait()
        return []

    memory = ApiKeyCache(ask, clock)
    with monkeypatch.context() as patch:
        patch.setattr(api_key_cache, "LOOK_UP_SECONDS", 0.01)
        first = asyncio.ensure_future(memory.get("1", GOOD))
        await given_up.wait()
    assert await asyncio.wait_for(memory.get("1", GOOD), 30) == PRINCIPAL
    with pytest.raises(Unavailable):
        await first
    may_end.set()
    await memory.aclose()


async def test_a_flood_of_unknown_keys_does_not_delay_known_ones(
    memory: ApiKeyCache, asked: Asked, clock: Clock
) -> None:
    await memory.get("1", GOOD)
    clock.seconds += api_key_cache.CACHE_TTL
    asked.free.clear()
    flood = [asyncio.ensure_future(memory.get("1", number.to_bytes(8))) for number in range(100)]
    await until(lambda: asked.running == 1)
    known = asyncio.ensure_future(memory.get("1", GOOD))
    await until(lambda: asked.running == 2)
    asked.free.set()
    assert await known == PRINCIPAL
    assert await asyncio.gather(*flood) == [None] * 100


async def test_a_new_valid_key_waits_for_few_statements_in_any_flood(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    flood = [asyncio.ensure_future(memory.get(str(number), number.to_bytes(8))) for number in range(1500)]
    await until(lambda: asked.running == 1)
    valid = asyncio.ensure_future(memory.get("valid", GOOD))
    await asyncio.sleep(0)
    asked.free.set()
    assert await valid == PRINCIPAL
    assert await asyncio.gather(*flood) == [None] * 1500
    assert (asked.times, asked.largest) == (1500 // api_key_cache.BATCH + 1, api_key_cache.BATCH)


async def test_more_lookups_than_may_wait_are_refused_at_once(
    memory: ApiKeyCache, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key_cache, "MAX_WAITING", 3)
    asked.free.clear()
    first = asyncio.ensure_future(memory.get("1", b"first"))
    await until(lambda: asked.running == 1)
    waiting = [asyncio.ensure_future(memory.get("1", number.to_bytes(8))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await memory.get("1", b"one too many")
    asked.free.set()
    assert await asyncio.gather(first, *waiting) == [None] * 4


async def test_closing_refuses_waiting_lookups(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    waiting = asyncio.ensure_future(memory.get("1", GOOD))
    await until(lambda: asked.running == 1)
    await memory.aclose()
    with pytest.raises(Unavailable):
        await waiting


async def until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0)


async def test_a_flood_of_bad_keys_is_bounded_and_evicts_no_valid_key(memory: ApiKeyCache, asked: Asked) -> None:
    await memory.get("1", GOOD)
    await asyncio.gather(
        *(memory.get("1", number.to_bytes(8)) for number in range(3 * api_key_cache.MAX_CACHED_REJECTIONS))
    )
    assert len(memory) == api_key_cache.MAX_CACHED_REJECTIONS + 1
    before = asked.times
    await memory.get("1", GOOD)
    assert asked.times == before


async def test_good_keys_are_bounded_as_well(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def everybody(keys: Sequence[KeyDigest]) -> list[Principal]:
        return [PRINCIPAL] * len(keys)

    monkeypatch.setattr(api_key_cache, "MAX_CACHED_KEYS", 3)
    memory = ApiKeyCache(everybody, clock)
    for number in range(10):
        await memory.get("1", number.to_bytes(8))
    assert len(memory) == 3
