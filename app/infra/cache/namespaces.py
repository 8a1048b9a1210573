"""Cache namespaces: values of one kind, keyed per tenant by the digest of everything they depend on.

Values are stored with their key, long ones compressed. Stored bytes are not trusted: they may be truncated, foreign or
forged. Whatever does not decode to a record with this very key is a miss.
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

FORMAT = 1
"""Another format of envelopes has another number."""

COMPRESS_BYTES = 1024
MAX_VALUE_BYTES = 4 << 20
"""Maximum bytes of a value, and of what a stored value may decompress to. Larger values are not cached."""

PREFIX: Final = b"agent-service:cache:1"
"""Key prefix with a version: another format of keys or values gets another number."""


class CacheRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored value; ``packed``: its body is a zstd frame (RFC 8878)."""

    format: int
    key: bytes
    packed: bool
    body: bytes


_encode_entry = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CacheRecord).decode


def seal(key: bytes, body: bytes) -> bytes | None:
    """Encode ``body`` for storage at ``key``; None if it is too large."""
    if len(body) > MAX_VALUE_BYTES:
        return None
    if len(body) <= COMPRESS_BYTES:
        return _encode_entry(CacheRecord(FORMAT, key, False, body))
    return _encode_entry(CacheRecord(FORMAT, key, True, zstandard.ZstdCompressor(level=1).compress(body)))


def unseal(key: bytes, stored: bytes) -> bytes | None:
    """Decode the body of ``stored``; None if it is not a record of ``key``."""
    try:
        record = _decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if record.format != FORMAT or record.key != key or len(record.body) > MAX_VALUE_BYTES:
        return None
    if not record.packed:
        return record.body
    try:
        if not 0 <= zstandard.frame_content_size(record.body) <= MAX_VALUE_BYTES:
            return None
        return zstandard.ZstdDecompressor().decompress(record.body)
    except zstandard.ZstdError:
        return None


HIT, MISS, SHARED, UNUSABLE, UNAVAILABLE = "hit", "miss", "shared", "unusable", "unavailable"

Value = TypeVar("Value")

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def tenant_prefix(name: str, tenant_id: UUID) -> bytes:
    """Return the key prefix of a tenant's values in the namespace ``name``."""
    return b"%s:%s:%s:" % (PREFIX, name.encode(), tenant_id.hex.encode())


class CacheNamespace:
    """Values of ``name`` in ``cache``, stored for ``seconds`` unless a save says otherwise.

    ``tasks`` own work that several callers share; ``aclose`` cancels it.
    """

    def __init__(self, name: str, cache: Cache, meters: Meters, seconds: float) -> None:
        self.name = name
        self.tasks = Tasks(f"cache.{name}")
        self._cache = cache
        self._meters = meters
        self._seconds = seconds

    async def aclose(self) -> None:
        """Cancel shared work in progress."""
        await self.tasks.aclose()

    def key(self, tenant_id: UUID, *parts: object) -> bytes:
        """Return the key of a tenant's value that depends on ``parts`` (anything that msgspec encodes).

        It reveals nothing of the parts: it is their BLAKE2b digest (RFC 7693).
        """
        digest = hashlib.blake2b(_encode([tenant_id.bytes, *parts]), digest_size=24)
        return tenant_prefix(self.name, tenant_id) + digest.hexdigest().encode()

    async def find(self, keys: Sequence[bytes], read: Callable[[bytes], Value | None]) -> dict[bytes, Value]:
        """Return the cached values of ``keys``. ``read`` decodes a value, and returns None if it cannot."""
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
        """Store ``bodies``, except those that are too large."""
        sealed = {key: stored for key, body in bodies.items() if (stored := seal(key, body)) is not None}
        await self._cache.put(sealed, self._seconds if seconds is None else seconds)

    def count(self, outcome: str) -> None:
        """Count a request with its outcome."""
        self._meters.cache_requests.add(1, self.name, outcome)
