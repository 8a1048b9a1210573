"""Conformance suite of caches."""

import asyncio

from app.infra.cache.port import Cache


async def test_stored_values_are_found_and_others_are_missing(cache: Cache) -> None:
    await cache.put({b"a": b"one", b"b": b"\x00\xff" * 1000, b"c": b""}, 60)
    assert await cache.get([b"c", b"no", b"a", b"b", b"a"]) == [b"", None, b"one", b"\x00\xff" * 1000, b"one"]
    assert cache.trouble == ""


async def test_no_keys_cause_no_request(cache: Cache) -> None:
    assert await cache.get([]) == []
    await cache.put({}, 60)


async def test_a_value_replaces_the_previous_one(cache: Cache) -> None:
    await cache.put({b"a": b"one"}, 60)
    await cache.put({b"a": b"two"}, 60)
    assert await cache.get([b"a"]) == [b"two"]


async def test_a_value_expires_after_its_ttl(cache: Cache) -> None:
    await cache.put({b"short": b"x"}, 0.05)
    await cache.put({b"long": b"x"}, 60)
    async with asyncio.timeout(10):
        while await cache.get([b"short"]) != [None]:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)
    assert await cache.get([b"long"]) == [b"x"]


async def test_keys_with_a_prefix_are_deleted_and_others_stay(cache: Cache) -> None:
    await cache.put({b"a*:%d" % number: b"x" for number in range(2500)} | {b"ab:1": b"x", b"b": b"x"}, 60)
    assert await cache.drop(b"a*:") == 2500
    assert await cache.get([b"a*:7", b"ab:1", b"b"]) == [None, b"x", b"x"]


async def test_concurrent_reads_get_their_own_values(cache: Cache) -> None:
    async def one(number: int) -> None:
        key, value = b"key %d" % number, b"value %d" % number * (number % 50 + 1)
        await cache.put({key: value}, 60)
        assert await cache.get([key]) == [value]

    await asyncio.gather(*(one(number) for number in range(200)))


async def test_a_cancelled_read_does_not_mix_up_the_values_of_others(cache: Cache) -> None:
    await cache.put({b"%d" % number: b"value %d" % number for number in range(20)}, 60)
    for turn in range(50):
        waiting = [asyncio.ensure_future(cache.get([b"%d" % number])) for number in range(20)]
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert found[1::2] == [[b"value %d" % number] for number in range(1, 20, 2)]
