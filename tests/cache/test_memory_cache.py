"""The in-process cache is bounded and evicts the least recently used values."""

from app.infra.cache.memory_cache import ENTRY_BYTES, LocalCache


async def test_the_least_recently_used_values_are_evicted() -> None:
    cache = LocalCache(max_bytes=3 * (ENTRY_BYTES + 101))
    for key in (b"a", b"b", b"c"):
        await cache.put({key: b"x" * 100}, 60)
    await cache.get([b"a"])
    await cache.put({b"d": b"x" * 100}, 60)
    assert [one is not None for one in await cache.get([b"a", b"b", b"c", b"d"])] == [True, False, True, True]


async def test_the_size_is_exact_after_puts_replacements_and_deletions() -> None:
    cache = LocalCache(max_bytes=5000)
    for number in range(200):
        await cache.put({b"%d" % (number % 13): b"x" * (number * 7 % 900)}, 60)
        assert cache.size <= 5000
    await cache.drop(b"")
    assert cache.size == 0


async def test_a_value_larger_than_the_cache_is_not_stored_and_evicts_nothing() -> None:
    cache = LocalCache(max_bytes=1000)
    await cache.put({b"small": b"x"}, 60)
    await cache.put({b"large": b"x" * 2000}, 60)
    assert await cache.get([b"small", b"large"]) == [b"x", None]


async def test_values_expire_by_the_given_clock() -> None:
    now = [0.0]
    cache = LocalCache(clock=lambda: now[0])
    await cache.put({b"a": b"x"}, 10)
    now[0] = 9.9
    assert await cache.get([b"a"]) == [b"x"]
    now[0] = 10.0
    assert await cache.get([b"a"]) == [None]
    assert cache.size == 0
