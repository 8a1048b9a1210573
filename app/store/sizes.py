"""What this process has seen lately of the sizes of things, so that not each search counts: how many vectors lie at a
place, and which words are common. It decides how is searched.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import asyncpg
import msgspec

from app.store.indexing import Near
from app.store.statements import Place, size

COUNTED = 20_000
"""Vectors that are counted at the most."""

SIZE_SECONDS = 30.0
MOST_KNOWN = 20_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lately(Generic[Key, Value]):
    """What was seen in the last ``seconds``, of ``MOST_KNOWN`` keys at the most."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """What was seen of ``key``; None where that is too long ago."""
        seen = self._seen.get(key)
        return seen[1] if seen is not None and seen[0] > time.monotonic() else None

    def put(self, key: Key, value: Value) -> None:
        """Remember, and forget what was remembered first."""
        self._seen[key] = (time.monotonic() + self._seconds, value)
        self._seen.move_to_end(key)
        if len(self._seen) > MOST_KNOWN:
            self._seen.popitem(last=False)


class Size(msgspec.Struct, frozen=True):
    """``own`` vectors come into question (counted up to ``COUNTED``), of some ``total`` of all tenants."""

    own: int
    total: int

    @property
    def share(self) -> float:
        """The part that comes into question, of what the walk passes."""
        return max(self.own, 1) / max(self.own, self.total, 1)


class Sizes:
    """How many vectors there are, as seen in the last ``SIZE_SECONDS``."""

    def __init__(self) -> None:
        self._seen: Lately[tuple[Place, int], Size] = Lately(SIZE_SECONDS)

    async def of(self, connection: asyncpg.Connection, place: Place, near: Near) -> Size:
        """Of the vectors at ``place`` that can be compared with ``near``."""
        seen = self._seen.get((place, near.space))
        if seen is None:
            text, values = size(place, near, COUNTED)
            row = await connection.fetchrow(text, *values)
            seen = Size(row["own"], row["total"])
            self._seen.put((place, near.space), seen)
        return seen
