"""Large values: work on them leaves the loop free, and the bytes held at once are bounded."""

import asyncio
import threading

import msgspec
import pytest

from app.base.errors import Limited, Unavailable
from app.base.offload import BULK, ByteBudget, offload, rough_size


async def test_large_work_runs_in_a_thread_and_small_work_inline() -> None:
    here = threading.get_ident()
    assert await offload(BULK - 1, threading.get_ident) == here
    assert await offload(BULK, threading.get_ident) != here


class Note(msgspec.Struct):
    text: str
    more: dict[str, list[bytes]]


def test_the_rough_size_of_a_value_counts_all_text_in_it() -> None:
    long = "x" * 10_000
    for value in (long, long.encode(), msgspec.Raw(long.encode()), [[long]], {"a": (long,)}, {long: 1}, Note(long, {})):
        assert 10_000 < rough_size(value) < 11_000
    assert 20_000 < rough_size(Note(long, {"a": [long.encode()]})) < 21_000
    assert rough_size(1) < 100
    assert rough_size([None] * BULK) == BULK  # as many values take their time, too
    assert rough_size(["x" * BULK] * 10) < 2 * BULK + 1000


async def test_what_fits_is_granted_at_once_and_the_rest_in_order() -> None:
    budget = ByteBudget(total=10, each=10)
    assert await budget.acquire("a", 6, 1) == 6
    assert await budget.acquire("b", 4, 1) == 4
    waiting = [asyncio.ensure_future(budget.acquire(holder, 6, 5)) for holder in "cd"]
    await asyncio.sleep(0)
    budget.release("b", 4)
    await asyncio.sleep(0)
    assert [turn.done() for turn in waiting] == [False, False]
    budget.release("a", 6)
    assert await waiting[0] == 6
    assert not waiting[1].done()
    budget.release("c", 6)
    assert await waiting[1] == 6


async def test_a_holder_with_a_full_share_does_not_delay_others() -> None:
    budget = ByteBudget(total=10, each=5)
    await budget.acquire("a", 5, 1)
    greedy = asyncio.ensure_future(budget.acquire("a", 5, 5))
    await asyncio.sleep(0)
    assert await budget.acquire("b", 5, 1) == 5
    budget.release("a", 5)
    assert await greedy == 5


async def test_a_timeout_says_which_share_is_full() -> None:
    budget = ByteBudget(total=8, each=5)
    await budget.acquire("a", 5, 1)
    with pytest.raises(Limited):
        await budget.acquire("a", 1, 0.01)
    with pytest.raises(Unavailable):
        await budget.acquire("b", 4, 0.01)
    budget.release("a", 5)
    assert await budget.acquire("b", 4, 0.01) == 4


async def test_a_reservation_larger_than_its_share_is_granted_alone() -> None:
    budget = ByteBudget(total=8, each=5)
    assert await budget.acquire("a", 100, 1) == 5


async def test_a_cancelled_wait_releases_its_reservation() -> None:
    budget = ByteBudget(total=5, each=5)
    await budget.acquire("a", 5, 1)
    waiting = asyncio.ensure_future(budget.acquire("b", 5, 5))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    budget.release("a", 5)
    assert await budget.acquire("c", 5, 0.01) == 5


async def test_a_release_right_after_a_cancellation_serves_the_next() -> None:
    budget = ByteBudget(total=5, each=5)
    await budget.acquire("a", 5, 1)
    cancelled, next_one = (asyncio.ensure_future(budget.acquire(holder, 5, 5)) for holder in "bc")
    await asyncio.sleep(0)
    cancelled.cancel()
    budget.release("a", 5)  # before the cancelled task runs
    assert await next_one == 5


async def test_a_waiter_that_times_out_lets_in_a_smaller_one_behind_it() -> None:
    budget = ByteBudget(total=10, each=10)
    await budget.acquire("a", 6, 1)
    large = asyncio.ensure_future(budget.acquire("b", 6, 0.05))
    await asyncio.sleep(0)
    small = asyncio.ensure_future(budget.acquire("c", 2, 30))
    with pytest.raises(Unavailable):
        await large
    async with asyncio.timeout(5):
        assert await small == 2


async def test_a_waiter_that_gives_up_lets_in_a_smaller_one_behind_it() -> None:
    budget, given_up = ByteBudget(total=10, each=10), asyncio.get_running_loop().create_future()
    await budget.acquire("a", 6, 1)
    large = asyncio.ensure_future(budget.acquire_until("b", 6, given_up))
    await asyncio.sleep(0)
    small = asyncio.ensure_future(budget.acquire_until("c", 2, asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    given_up.set_result(None)
    assert await large == 0
    async with asyncio.timeout(5):
        assert await small == 2


async def test_an_error_names_what_there_is_too_much_of() -> None:
    budget = ByteBudget(total=10, each=5, of="uploads arrive")
    await budget.acquire("a", 5, 1)
    with pytest.raises(Limited, match=r"Too many uploads arrive for this key: send them one after the other\."):
        await budget.acquire("a", 5, 0.01)
    await budget.acquire("b", 5, 1)
    with pytest.raises(Unavailable, match=r"Too many uploads arrive: try again\."):
        await budget.acquire("c", 5, 0.01)
