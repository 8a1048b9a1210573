"""The port to caches: bytes at keys for a while. Whatever happens to one, nothing breaks: it then holds nothing."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Cache(Protocol):
    """Keeps values for some time at best: any of them may be gone, or be another one, whenever it is asked.

    Nothing raises. ``trouble`` says in a sentence what is wrong with it, empty when nothing is.
    """

    @property
    def trouble(self) -> str:
        """What is wrong with it; empty when nothing is."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    async def aclose(self) -> None:
        """Stop."""
        ...

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept at each of ``keys``."""
        ...

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Keep ``values`` for so long, or shorter."""
        ...

    async def drop(self, prefix: bytes) -> int:
        """Forget every key that begins with ``prefix``; how many."""
        ...
