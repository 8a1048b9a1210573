"""The port to caches: bytes by key, with a TTL. A cache never raises; when it fails, it holds nothing."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Cache(Protocol):
    """Stores values on a best-effort basis: any value may be missing or wrong when it is read.

    Methods never raise. ``trouble`` describes a failure, empty if there is none.
    """

    @property
    def trouble(self) -> str:
        """The current failure in a sentence, empty if there is none."""
        ...

    def start(self) -> None:
        """Start background work."""
        ...

    async def aclose(self) -> None:
        """Close the cache."""
        ...

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value at each of ``keys``, None if missing."""
        ...

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Store ``values`` for at most ``seconds``."""
        ...

    async def drop(self, prefix: bytes) -> int:
        """Delete every key with ``prefix``; return their number."""
        ...
