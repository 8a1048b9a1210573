"""The cache of one process holds no more than it may, and lets go what was used the longest time ago."""

from app.infra.cache.memory_cache import ENTRY_BYTES, LocalCache


async def test_what_was_used_last_stays_when_there_is_no_room_for_all() -> None:
    cache = LocalCache(max_bytes=3 * (ENTRY_BYTES + 101))
    for key in (b"a", b"b", b"c"):
        await cache.put({key: b"x" * 100}, 60)
    await cache.get([b"a"])
    await cache.put({b"d": b"x" * 100}, 60)
    assert [one is not None for one in await cache.get([b"a", b"b", b"c", b"d"])] == [True, False, True, True]


async def test_its_bytes_are_counted_right_whatever_is_put_replaced_and_dropped() -> None:
    cache = LocalCache(max_bytes=5000)
    for number in range(200):
        await cache.put({b"%d" % (number % 13): b"x" * (number * 7 % 900)}, 60)
        assert cache.size <= 5000
    await cache.drop(b"")
    assert cache.size == 0


async def test_a_value_larger_than_all_room_is_not_kept_and_takes_no_other_away() -> None:
    cache = LocalCache(max_bytes=1000)
    await cache.put({b"small": b"x"}, 60)
    await cache.put({b"large": b"x" * 2000}, 60)
    assert await cache.get([b"small", b"large"]) == [b"x", None]


async def test_its_time_is_that_of_its_clock() -> None:
    now = [0.0]
    cache = LocalCache(clock=lambda: now[0])
    await cache.put({b"a": b"x"}, 10)
    now[0] = 9.9
    assert await cache.get([b"a"]) == [b"x"]
    now[0] = 10.0
    assert await cache.get([b"a"]) == [None]
    assert cache.size == 0
