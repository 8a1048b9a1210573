"""Cache namespaces: values per tenant, keyed by all they depend on; foreign values are misses."""

import hashlib
from uuid import UUID

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.namespaces import FORMAT, MAX_VALUE_BYTES, CacheNamespace, CacheRecord, seal, tenant_prefix, unseal
from app.infra.cache.port import Cache
from app.infra.telemetry.meters import Meters

ONE, OTHER = UUID(int=1), UUID(int=2)
KEY = b"key"


def text(body: bytes) -> str | None:
    return body.decode() if body.isascii() else None


def shelf(cache: Cache) -> tuple[CacheNamespace, Meters]:
    meters = Meters()
    return CacheNamespace("things", cache, meters, 60), meters


async def test_a_key_is_a_digest_of_the_tenant_and_all_parts() -> None:
    things, _ = shelf(LocalCache())
    key = things.key(ONE, "a prompt", ["x"], None)
    assert key == things.key(ONE, "a prompt", ["x"], None)
    assert b"prompt" not in key
    assert key.startswith(tenant_prefix("things", ONE))
    others = [
        things.key(OTHER, "a prompt", ["x"], None),
        things.key(ONE, "a prompt", ["x"]),
        things.key(ONE, "a promptx", [], None),
        things.key(ONE, "a prompt", "x", None),
    ]
    assert len({key, *others}) == 5


async def test_the_order_of_fields_in_an_object_does_not_matter() -> None:
    things, _ = shelf(LocalCache())
    assert things.key(ONE, {"a": 1, "b": {"c": 2, "d": 3}}) == things.key(ONE, {"b": {"d": 3, "c": 2}, "a": 1})


async def test_hits_and_misses_are_counted(cache: Cache) -> None:
    things, meters = shelf(cache)
    first, second = things.key(ONE, 1), things.key(ONE, 2)
    await things.save({first: b"kept"})
    assert await things.find([first, second], text) == {first: "kept"}
    assert meters.cache_requests.series == {("things", "hit"): 1, ("things", "miss"): 1}


async def test_long_values_are_compressed_and_come_back_whole(cache: Cache) -> None:
    things, _ = shelf(cache)
    key = things.key(ONE, 1)
    await things.save({key: b"word " * 10_000})
    (stored,) = await cache.get([key])
    assert stored is not None
    assert len(stored) < 1000
    assert await things.find([key], text) == {key: "word " * 10_000}


async def test_a_value_that_is_too_large_is_not_kept(cache: Cache) -> None:
    things, _ = shelf(cache)
    key = things.key(ONE, 1)
    await things.save({key: b"x" * (MAX_VALUE_BYTES + 1)})
    assert await things.find([key], text) == {}


async def test_foreign_values_are_misses(cache: Cache) -> None:
    things, meters = shelf(cache)
    mine, theirs = things.key(ONE, 1), things.key(OTHER, 1)
    await things.save({theirs: b"secret"})
    (stored,) = await cache.get([theirs])
    assert stored is not None
    hostile = [stored, b"", b"\x80\x04]q\x00.", b"{}", b"\xc1", stored[:-1], b"\x94" + stored]
    for value in hostile:
        await cache.put({mine: value}, 60)
        assert await things.find([mine], text) == {}
    await cache.put({mine: seal(mine, b"\xff") or b""}, 60)
    assert await things.find([mine], text) == {}, "what its reader cannot use"
    assert meters.cache_requests.series == {("things", "unusable"): len(hostile) + 1}


def bomb(claimed: int) -> bytes:
    """A frame of zeros; ``claimed`` 0: without its size."""
    compressor = zstandard.ZstdCompressor(write_content_size=bool(claimed))
    return compressor.compress(bytes(claimed or MAX_VALUE_BYTES * 4))


@pytest.mark.parametrize(
    "envelope",
    [
        CacheRecord(FORMAT, KEY, True, bomb(MAX_VALUE_BYTES + 1)),
        CacheRecord(FORMAT, KEY, True, bomb(0)),
        CacheRecord(FORMAT, KEY, True, b"no frame"),
        CacheRecord(FORMAT, KEY, True, b""),
        CacheRecord(FORMAT, b"other", False, b"x"),
        CacheRecord(FORMAT + 1, KEY, False, b"x"),
        CacheRecord(-1, KEY, False, b"x"),
    ],
)
def test_an_invalid_record_is_a_miss(envelope: CacheRecord) -> None:
    assert unseal(KEY, msgspec.msgpack.encode(envelope)) is None


@given(st.binary(max_size=5000))
def test_every_body_comes_back_as_it_was(body: bytes) -> None:
    stored = seal(KEY, body)
    assert stored is not None
    assert unseal(KEY, stored) == body
    assert unseal(b"other", stored) is None


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_miss_or_a_body(stored: bytes) -> None:
    unseal(KEY, stored)
    digest = hashlib.blake2b(stored).digest()
    assert unseal(digest, stored) is None
