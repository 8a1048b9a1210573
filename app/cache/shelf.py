"""What caches are used for: a shelf of values of one kind, each at the digest of all that it depends on, by tenant."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from app.base.tasks import Tasks
from app.cache.codec import seal, unseal
from app.cache.port import Cache
from app.telemetry.meters import Meters

PREFIX: Final = b"agent-service:cache:1"
"""Another form of keys or values has another number: what is there then is as if it were not."""

HIT, MISS, SHARED, UNUSABLE, UNAVAILABLE = "hit", "miss", "shared", "unusable", "unavailable"

Value = TypeVar("Value")

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def tenant_prefix(name: str, tenant_id: UUID) -> bytes:
    """How the keys of a tenant's values on the shelf ``name`` begin."""
    return b"%s:%s:%s:" % (PREFIX, name.encode(), tenant_id.hex.encode())


class Shelf:
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

    async def keep(self, bodies: Mapping[bytes, bytes], seconds: float | None = None) -> None:
        """Keep ``bodies``; those that are too large are not."""
        sealed = {key: stored for key, body in bodies.items() if (stored := seal(key, body)) is not None}
        await self._cache.put(sealed, self._seconds if seconds is None else seconds)

    def count(self, outcome: str) -> None:
        """A value was looked for, with this outcome."""
        self._meters.cache_requests.add(1, self.name, outcome)
