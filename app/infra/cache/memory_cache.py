"""In-process LRU cache, bounded in bytes; also the test double of the port."""

import time
from collections.abc import Callable, Mapping, Sequence

from app.base.ttl_cache import TTLCache

MAX_BYTES = 64 << 20
ENTRY_BYTES = 200
"""Approximate overhead of an entry in addition to its key and value."""


class LocalCache:
    """LRU cache in memory (``app.infra.cache.port.Cache``), bounded to ``max_bytes``. ``clock`` counts seconds."""

    trouble = ""

    def __init__(self, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: TTLCache[bytes, bytes] = TTLCache(max_bytes, lru=True, size_of=_size, clock=clock)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return self._entries.size

    def start(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Clear the cache."""
        self._entries.clear()

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values at ``keys``, which become the most recently used."""
        return [self._get(key) for key in keys]

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Store ``values``; evict the least recently used ones if needed."""
        expires_at = self._clock() + seconds
        for key, value in values.items():
            self._entries.put(key, value, until=expires_at)

    async def drop(self, prefix: bytes) -> int:
        """Delete every key with ``prefix``; return their number."""
        return self._entries.remove_if(lambda key: key.startswith(prefix))

    def _get(self, key: bytes) -> bytes | None:
        value = self._entries.get(key)
        if value is None:
            self._entries.pop(key)  # frees the memory of an expired value
        return value


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
