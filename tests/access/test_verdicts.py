"""The memory of keys: quick, small, never wrong for long, and never open."""

import asyncio
from uuid import UUID

import pytest

from app.access import verdicts
from app.access.structs import Principal
from app.access.verdicts import Verdicts
from app.base.errors import Unavailable
from tests.access.clock import Clock

GOOD = b"good"
SOMEBODY = Principal(UUID(int=1), "1")


class Asked:
    """Stands for the database: answers when ``free`` is set, and counts."""

    def __init__(self) -> None:
        self.times = 0
        self.running = 0
        self.free = asyncio.Event()
        self.free.set()
        self.failure: Exception | None = None

    async def __call__(self, key_id: str, digest: bytes) -> Principal | None:
        self.times += 1
        self.running += 1
        try:
            await self.free.wait()
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        return SOMEBODY if digest == GOOD else None


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def memory(asked: Asked, clock: Clock) -> Verdicts:
    return Verdicts(asked, clock)


@pytest.mark.parametrize("digest, verdict", [(GOOD, SOMEBODY), (b"bad", None)])
async def test_an_answer_is_believed_for_less_than_five_seconds(
    memory: Verdicts, asked: Asked, clock: Clock, digest: bytes, verdict: Principal | None
) -> None:
    assert await memory.of("1", digest) == verdict
    assert await memory.of("1", digest) == verdict
    assert asked.times == 1
    clock.seconds += verdicts.BELIEVED_SECONDS
    assert await memory.of("1", digest) == verdict
    assert asked.times == 2
    assert max(verdicts.BELIEVED_SECONDS, verdicts.LOOK_UP_SECONDS) < 5


async def test_belief_counts_from_the_question_and_not_from_a_late_answer(
    memory: Verdicts, asked: Asked, clock: Clock
) -> None:
    asked.free.clear()
    first = asyncio.ensure_future(memory.of("1", GOOD))
    await asyncio.sleep(0)
    clock.seconds += verdicts.BELIEVED_SECONDS
    asked.free.set()
    assert await first == SOMEBODY
    await memory.of("1", GOOD)
    assert asked.times == 2


async def test_many_requests_with_one_key_ask_once(memory: Verdicts, asked: Asked) -> None:
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.of("1", GOOD)) for _ in range(50)]
    await asyncio.sleep(0)
    asked.free.set()
    assert await asyncio.gather(*waiting) == [SOMEBODY] * 50
    assert asked.times == 1


async def test_a_request_that_goes_away_while_it_asks_takes_no_other_along(memory: Verdicts, asked: Asked) -> None:
    asked.free.clear()
    first, *others = (asyncio.ensure_future(memory.of("1", GOOD)) for _ in range(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    asked.free.set()
    assert await asyncio.gather(*others) == [SOMEBODY] * 4
    assert asked.times == 2


async def test_a_request_that_goes_away_while_it_waits_leaves_the_question_alone(
    memory: Verdicts, asked: Asked
) -> None:
    asked.free.clear()
    first, second = (asyncio.ensure_future(memory.of("1", GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    asked.free.set()
    assert await first == SOMEBODY
    assert asked.times == 1


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered(memory: Verdicts, asked: Asked) -> None:
    asked.failure = Unavailable("away")
    asked.free.clear()
    waiting = [asyncio.ensure_future(memory.of("1", GOOD)) for _ in range(5)]
    await asyncio.sleep(0)
    asked.free.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert asked.times == 1
    asked.failure = None
    assert await memory.of("1", GOOD) == SOMEBODY


async def test_what_was_believed_once_counts_for_nothing_while_nobody_can_tell(
    memory: Verdicts, asked: Asked, clock: Clock
) -> None:
    await memory.of("1", GOOD)
    asked.failure = Unavailable("away")
    clock.seconds += verdicts.BELIEVED_SECONDS
    with pytest.raises(Unavailable):
        await memory.of("1", GOOD)


async def test_an_answer_that_does_not_come_in_time_is_a_failure(
    memory: Verdicts, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "LOOK_UP_SECONDS", 0.01)
    asked.free.clear()
    with pytest.raises(Unavailable):
        await memory.of("1", GOOD)


async def test_a_flood_of_unknown_keys_keeps_known_ones_from_nothing(
    memory: Verdicts, asked: Asked, clock: Clock
) -> None:
    await memory.of("1", GOOD)
    clock.seconds += verdicts.BELIEVED_SECONDS
    asked.free.clear()
    flood = [asyncio.ensure_future(memory.of("1", number.to_bytes(8))) for number in range(100)]
    await asyncio.sleep(0)
    assert asked.running == verdicts.STRANGERS
    known = asyncio.ensure_future(memory.of("1", GOOD))
    await asyncio.sleep(0)
    assert asked.running == verdicts.STRANGERS + 1
    asked.free.set()
    assert await known == SOMEBODY
    assert await asyncio.gather(*flood) == [None] * 100


async def test_a_flood_of_bad_keys_fills_no_memory_and_pushes_out_no_good_one(memory: Verdicts, asked: Asked) -> None:
    await memory.of("1", GOOD)
    for number in range(3 * verdicts.MOST_BAD):
        await memory.of("1", number.to_bytes(8))
    assert len(memory) == verdicts.MOST_BAD + 1
    before = asked.times
    await memory.of("1", GOOD)
    assert asked.times == before


async def test_good_keys_are_bounded_as_well(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def everybody(key_id: str, digest: bytes) -> Principal:
        return SOMEBODY

    monkeypatch.setattr(verdicts, "MOST_GOOD", 3)
    memory = Verdicts(everybody, clock)
    for number in range(10):
        await memory.of("1", number.to_bytes(8))
    assert len(memory) == 3
