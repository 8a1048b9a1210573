"""The memory of keys: quick, small, never wrong for long, and never open."""

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
SOMEBODY = Principal(UUID(int=1), "1")


class Asked:
    """Stands for the database: answers when ``free`` is set, and counts."""

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
        return [SOMEBODY if digest == GOOD else None for _, digest in keys]


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
async def memory(asked: Asked, clock: Clock) -> AsyncIterator[ApiKeyCache]:
    memory = ApiKeyCache(asked, clock)
    yield memory
    await memory.aclose()


@pytest.mark.parametrize("digest, verdict", [(GOOD, SOMEBODY), (b"bad", None)])
async def test_an_answer_is_believed_for_less_than_five_seconds(
    memory: ApiKeyCache, asked: Asked, clock: Clock, digest: bytes, verdict: Principal | None
) -> None:
    assert await memory.get("1", digest) == verdict
    assert await memory.get("1", digest) == verdict
    assert asked.times == 1
    clock.seconds += api_key_cache.CACHE_TTL
    assert await memory.get("1", digest) == verdict
    assert asked.times == 2
    assert max(api_key_cache.CACHE_TTL, api_key_cache.LOOK_UP_SECONDS) < 5


async def test_belief_counts_from_the_question_and_not_from_a_late_answer(
    memory: ApiKeyCache, asked: Asked, clock: Clock
) -> None:
    asked.free.clear()
    first = asyncio.ensure_future(memory.get("1", GOOD))
    await until(lambda: asked.running == 1)
    clock.seconds += api_key_cache.CACHE_TTL
    asked.free.set()
    assert await first == SOMEBODY
    await memory.get("1", GOOD)
    assert asked.times == 2


async def test_many_requests_with_one_key_ask_once(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(50)]
    await asyncio.sleep(0)
    asked.free.set()
    assert await asyncio.gather(*waiting) == [SOMEBODY] * 50
    assert asked.times == 1


async def test_a_request_that_goes_away_while_it_asks_takes_no_other_along(memory: ApiKeyCache, asked: Asked) -> None:
    asked.free.clear()
    first, *others = (asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    asked.free.set()
    assert await asyncio.gather(*others) == [SOMEBODY] * 4
    assert asked.times == 1


async def test_a_request_that_goes_away_while_it_waits_leaves_the_question_alone(
    memory: ApiKeyCache, asked: Asked
) -> None:
    asked.free.clear()
    first, second = (asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    asked.free.set()
    assert await first == SOMEBODY
    assert asked.times == 1


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered(memory: ApiKeyCache, asked: Asked) -> None:
    asked.failure = Unavailable("away")
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.get("1", GOOD)) for _ in range(5)]
    await asyncio.sleep(0)
    asked.free.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert asked.times == 1
    asked.failure = None
    assert await memory.get("1", GOOD) == SOMEBODY


async def test_what_was_believed_once_counts_for_nothing_while_nobody_can_tell(
    memory: ApiKeyCache, asked: Asked, clock: Clock
) -> None:
    await memory.get("1", GOOD)
    asked.failure = Unavailable("away")
    clock.seconds += api_key_cache.CACHE_TTL
    with pytest.raises(Unavailable):
        await memory.get("1", GOOD)


async def test_an_answer_that_does_not_come_in_time_is_a_failure(
    memory: ApiKeyCache, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key_cache, "LOOK_UP_SECONDS", 0.01)
    asked.free.clear()
    with pytest.raises(Unavailable):
        await memory.get("1", GOOD)


async def test_a_question_that_takes_long_to_give_up_keeps_no_later_one_waiting(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver takes seconds to give up a connection that gets no answer; the database is back by then."""
    given_up, may_end = asyncio.Event(), asyncio.Event()

    async def ask(_: Sequence[KeyDigest]) -> list[Principal | None]:
        if given_up.is_set():
            return [SOMEBODY]
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
    assert await asyncio.wait_for(memory.get("1", GOOD), 30) == SOMEBODY
    with pytest.raises(Unavailable):
        await first
    may_end.set()
    await memory.aclose()


async def test_a_flood_of_unknown_keys_keeps_known_ones_from_nothing(
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
    assert await known == SOMEBODY
    assert await asyncio.gather(*flood) == [None] * 100


async def test_a_valid_key_that_is_new_waits_for_few_statements_whatever_the_flood(
    memory: ApiKeyCache, asked: Asked
) -> None:
    asked.free.clear()
    flood = [asyncio.ensure_future(memory.get(str(number), number.to_bytes(8))) for number in range(1500)]
    await until(lambda: asked.running == 1)
    valid = asyncio.ensure_future(memory.get("valid", GOOD))
    await asyncio.sleep(0)
    asked.free.set()
    assert await valid == SOMEBODY
    assert await asyncio.gather(*flood) == [None] * 1500
    assert (asked.times, asked.largest) == (1500 // api_key_cache.BATCH + 1, api_key_cache.BATCH)


async def test_more_keys_than_may_wait_are_refused_at_once(
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


async def test_closing_refuses_those_that_wait(memory: ApiKeyCache, asked: Asked) -> None:
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


async def test_a_flood_of_bad_keys_fills_no_memory_and_pushes_out_no_good_one(
    memory: ApiKeyCache, asked: Asked
) -> None:
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
        return [SOMEBODY] * len(keys)

    monkeypatch.setattr(api_key_cache, "MAX_CACHED_KEYS", 3)
    memory = ApiKeyCache(everybody, clock)
    for number in range(10):
        await memory.get("1", number.to_bytes(8))
    assert len(memory) == 3
