"""In-process LRU cache, bounded in bytes; also the test double of the port."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

MAX_BYTES = 64 << 20
ENTRY_BYTES = 200
"""Approximate overhead of an entry in addition to its key and value."""


class LocalCache:
    """LRU cache in memory (``app.infra.cache.port.Cache``), bounded to ``max_bytes``. ``clock`` counts seconds."""

    trouble = ""

    def __init__(self, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.size = 0

    def start(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Clear the cache."""
        self._entries.clear()
        self.size = 0

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values at ``keys``, which become the most recently used."""
        return [self._get(key) for key in keys]

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Store ``values``; evict the least recently used ones if needed."""
        expires_at = self._clock() + seconds
        for key, value in values.items():
            self._delete(key)
            if _size(key, value) > self._max_bytes:
                continue
            self._entries[key] = (value, expires_at)
            self.size += _size(key, value)
        while self.size > self._max_bytes:
            self._delete(next(iter(self._entries)))

    async def drop(self, prefix: bytes) -> int:
        """Delete every key with ``prefix``; return their number."""
        found = [key for key in self._entries if key.startswith(prefix)]
        for key in found:
            self._delete(key)
        return len(found)

    def _get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_at = entry
        if expires_at <= self._clock():
            self._delete(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _delete(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= _size(key, entry[0])


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
