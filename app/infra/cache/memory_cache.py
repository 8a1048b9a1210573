"""The cache of one process: what was used last stays, within a number of bytes. It is the double of the port, too."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

MAX_BYTES = 64 << 20
ENTRY_BYTES = 200
"""What an entry takes besides its key and its value, about."""


class LocalCache:
    """Implements ``app.infra.cache.port.Cache``. ``max_bytes`` bounds its bytes; ``clock`` counts seconds."""

    trouble = ""

    def __init__(self, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.size = 0

    def start(self) -> None:
        """Nothing to begin."""

    async def aclose(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.size = 0

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept at each of ``keys``, which are then those used last."""
        return [self._get(key) for key in keys]

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Keep ``values``; what was not used for the longest time makes room for them."""
        until = self._clock() + seconds
        for key, value in values.items():
            self._forget(key)
            if _size(key, value) > self._max_bytes:
                continue
            self._entries[key] = (value, until)
            self.size += _size(key, value)
        while self.size > self._max_bytes:
            self._forget(next(iter(self._entries)))

    async def drop(self, prefix: bytes) -> int:
        """Forget every key that begins with ``prefix``; how many."""
        found = [key for key in self._entries if key.startswith(prefix)]
        for key in found:
            self._forget(key)
        return len(found)

    def _get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until = entry
        if until <= self._clock():
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= _size(key, entry[0])


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
