"""The cache in memory: expiry, bounds, eviction order."""

import random

from app.base.ttl_cache import TTLCache
from tests.access.clock import Clock


def test_values_expire_by_the_clock_and_are_still_known() -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, 4.0, clock=clock)
    cache.put("a", 1)
    cache.put("b", 2, until=clock.seconds + 9)
    clock.seconds += 3.9
    assert (cache.get("a"), "a" in cache, list(cache)) == (1, True, ["a", "b"])
    clock.seconds += 0.1
    assert (cache.get("a"), "a" in cache, list(cache)) == (None, False, ["b"])
    assert cache.was_cached("a")
    assert not cache.was_cached("c")
    assert cache.remove_expired(clock.seconds - 1) == 0
    assert (cache.remove_expired(), len(cache), cache.size) == (1, 1, 1)
    assert not cache.was_cached("a")


def test_a_full_cache_evicts_what_was_put_first_or_used_least_recently() -> None:
    for lru, left in ((False, ["b", "c"]), (True, ["c", "a"])):
        cache: TTLCache[str, int] = TTLCache(2, lru=lru)
        cache.put("a", 1)
        cache.put("b", 2)
        assert cache.get("a") == 1
        cache.put("c", 3)
        assert [key for key in "bca" if key in cache] == left
    cache = TTLCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 4), "a put makes an entry the newest"


def test_sizes_are_exact_and_bounded_whatever_is_done() -> None:
    chance = random.Random(7)
    clock = Clock()
    cache: TTLCache[int, bytes] = TTLCache(1000, 50.0, size_of=lambda _, value: len(value), clock=clock, lru=True)
    for _ in range(3000):
        key = chance.randrange(40)
        match chance.randrange(12):
            case 0:
                cache.pop(key)
            case 1:
                cache.remove_expired()
            case 2:
                cache.remove_if(lambda one: one % 7 == 0)
            case 3 | 4:
                cache.get(key)
            case _:
                cache.put(key, b"x" * chance.randrange(300))
        clock.seconds += 1
        assert cache.size == sum(len(entry.value) for entry in cache._entries.values()) <= 1000
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


def test_a_value_larger_than_the_cache_replaces_the_old_one_and_evicts_nothing_else() -> None:
    cache: TTLCache[str, bytes] = TTLCache(10, size_of=lambda _, value: len(value))
    cache.put("a", b"x" * 4)
    cache.put("b", b"x" * 4)
    cache.put("a", b"x" * 11)
    assert (cache.get("a"), cache.get("b"), cache.size) == (None, b"xxxx", 4)
