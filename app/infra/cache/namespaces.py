"""What caches are used for: a shelf of values of one kind, each at the digest of all that it depends on, by tenant.

How a value rests in a cache: with the key that it belongs to, compressed where it is long.

What comes out of a cache may have been written by anybody, be cut off, or belong elsewhere: what is no envelope of ours
for this very key is nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar
from uuid import UUID

import msgspec
import zstandard

from app.base.tasks import Tasks
from app.infra.cache.port import Cache
from app.infra.telemetry.meters import Meters

FORM = 1
"""Another form of envelopes has another number."""

COMPRESS_BYTES = 1024
MAX_VALUE_BYTES = 4 << 20
"""Bytes of a value. What is larger is not kept, and nothing may claim to unpack to more."""


class CacheRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value; ``packed``: it is a zstd frame (RFC 8878)."""

    form: int
    key: bytes
    packed: bool
    body: bytes


_encode_entry = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CacheRecord).decode


def seal(key: bytes, body: bytes) -> bytes | None:
    """``body`` as it is kept at ``key``; None for one that is too large."""
    if len(body) > MAX_VALUE_BYTES:
        return None
    if len(body) <= COMPRESS_BYTES:
        return _encode_entry(CacheRecord(FORM, key, False, body))
    return _encode_entry(CacheRecord(FORM, key, True, zstandard.ZstdCompressor(level=1).compress(body)))


def unseal(key: bytes, stored: bytes) -> bytes | None:
    """The body in ``stored``; None where it is no envelope for ``key``."""
    try:
        envelope = _decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if envelope.form != FORM or envelope.key != key or len(envelope.body) > MAX_VALUE_BYTES:
        return None
    if not envelope.packed:
        return envelope.body
    try:
        if not 0 <= zstandard.frame_content_size(envelope.body) <= MAX_VALUE_BYTES:
            return None
        return zstandard.ZstdDecompressor().decompress(envelope.body)
    except zstandard.ZstdError:
        return None


PREFIX: Final = b"agent-service:cache:1"
"""Another form of keys or values has another number: what is there then is as if it were not."""

HIT, MISS, SHARED, UNUSABLE, UNAVAILABLE = "hit", "miss", "shared", "unusable", "unavailable"

Value = TypeVar("Value")

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def tenant_prefix(name: str, tenant_id: UUID) -> bytes:
    """How the keys of a tenant's values on the shelf ``name`` begin."""
    return b"%s:%s:%s:" % (PREFIX, name.encode(), tenant_id.hex.encode())


class CacheNamespace:
    """The values called ``name`` in ``cache``, kept for ``seconds`` unless a put says otherwise.

    ``tasks`` own what goes on for several callers at once; they end with ``aclose``.
    """

    def __init__(self, name: str, cache: Cache, meters: Meters, seconds: float) -> None:
        self.name = name
        self.tasks = Tasks(f"cache.{name}")
        self._cache = cache
        self._meters = meters
        self._seconds = seconds

    async def aclose(self) -> None:
        """End what goes on."""
        await self.tasks.aclose()

    def key(self, tenant_id: UUID, *parts: object) -> bytes:
        """The key of what depends on ``parts`` (anything that msgspec encodes) and is the tenant's.

        It tells nothing of the parts: it is their BLAKE2b digest (RFC 7693).
        """
        digest = hashlib.blake2b(_encode([tenant_id.bytes, *parts]), digest_size=24)
        return tenant_prefix(self.name, tenant_id) + digest.hexdigest().encode()

    async def find(self, keys: Sequence[bytes], read: Callable[[bytes], Value | None]) -> dict[bytes, Value]:
        """What is there at ``keys``. ``read`` makes a value of bytes; None for bytes that are none of its kind."""
        found: dict[bytes, Value] = {}
        stored = await self._cache.get(keys)
        for key, one in zip(keys, stored, strict=True):
            if one is None:
                self.count(UNAVAILABLE if self._cache.trouble else MISS)
                continue
            body = unseal(key, one)
            value = None if body is None else read(body)
            if value is None:
                self.count(UNUSABLE)
                continue
            self.count(HIT)
            found[key] = value
        return found

    async def save(self, bodies: Mapping[bytes, bytes], seconds: float | None = None) -> None:
        """Keep ``bodies``; those that are too large are not."""
        sealed = {key: stored for key, body in bodies.items() if (stored := seal(key, body)) is not None}
        await self._cache.put(sealed, self._seconds if seconds is None else seconds)

    def count(self, outcome: str) -> None:
        """A value was looked for, with this outcome."""
        self._meters.cache_requests.add(1, self.name, outcome)
