"""What this process has seen lately of the sizes of things, so that not each search counts: how many vectors lie at a
place, and which words are common. It decides how is searched.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import asyncpg
import msgspec

from app.features.store.index.indexing import NeighbourQuery
from app.features.store.search.sql import SearchScope, sample, size

COUNTED = 20_000
"""Vectors that are counted at the most."""

SIZE_SECONDS = 30.0

LARGE = 5_000
"""Vectors from which on a sample of the items at a place says something of its words."""

SAMPLED = 2_000
"""Items of all tenants that are read for a sample, about; and ten times as many where few of these lie at the place."""

ENOUGH = 500
"""Items of a sample at the place that are not few."""

MIN_SAMPLE = 10
"""Items of a sample that must have a word: of fewer, chance says too much."""

SAMPLE_SECONDS = 600.0

MAX_CACHED_KEYS = 20_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TTLCache(Generic[Key, Value]):
    """What was seen in the last ``seconds``, of ``MAX_CACHED_KEYS`` keys at the most."""

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
        if len(self._seen) > MAX_CACHED_KEYS:
            self._seen.popitem(last=False)


class VectorCount(msgspec.Struct, frozen=True):
    """``own`` vectors come into question (counted up to ``COUNTED``), of some ``total`` of all tenants."""

    own: int
    total: int

    @property
    def share(self) -> float:
        """The part that comes into question, of what the walk passes."""
        return max(self.own, 1) / max(self.own, self.total, 1)


class VectorCounts:
    """How many vectors there are, as seen in the last ``SIZE_SECONDS``."""

    def __init__(self) -> None:
        self._seen: TTLCache[tuple[SearchScope, int], VectorCount] = TTLCache(SIZE_SECONDS)

    async def of(self, connection: asyncpg.Connection, place: SearchScope, near: NeighbourQuery) -> VectorCount:
        """Of the vectors at ``place`` that can be compared with ``near``."""
        seen = self._seen.get((place, near.space))
        if seen is None:
            text, values = size(place, near, COUNTED)
            row = await connection.fetchrow(text, *values)
            seen = VectorCount(row["own"], row["total"])
            self._seen.put((place, near.space), seen)
        return seen


class WordSample(msgspec.Struct, frozen=True):
    """What some items of a place say of all: ``counts`` are how many of these have a word at the least.

    Words that few items of the sample have are not among them. ``mostly``: most items of all tenants lie at the place.
    """

    counts: dict[str, float]
    mostly: bool


UNKNOWN = WordSample({}, mostly=False)


class WordStatistics:
    """Which words are common at a place, as seen in the last ``SAMPLE_SECONDS``."""

    def __init__(self) -> None:
        self._seen: TTLCache[SearchScope, WordSample] = TTLCache(SAMPLE_SECONDS)

    async def of(self, connection: asyncpg.Connection, place: SearchScope, size: VectorCount) -> WordSample:
        """Of the items at ``place``, which has vectors of ``size``; of few of them nothing is said."""
        if size.own < LARGE:
            return UNKNOWN
        seen = self._seen.get(place)
        if seen is None:
            self._seen.put(place, UNKNOWN)  # searches that come meanwhile need not look too
            total = max(size.own, size.total)
            items, seen = await _sampled(connection, place, total, SAMPLED)
            if items < ENOUGH:
                _, seen = await _sampled(connection, place, total, 10 * SAMPLED)
            self._seen.put(place, seen)
        return seen


async def _sampled(connection: asyncpg.Connection, place: SearchScope, total: int, read: int) -> tuple[int, WordSample]:
    """How many items at ``place`` are among the about ``read`` of ``total`` that are looked at, and what they say."""
    part = min(1.0, read / total)
    text, values = sample(place, part, MIN_SAMPLE)
    rows = await connection.fetch(text, *values)
    items = next(row["items"] for row in rows if row["word"] is None)
    counts = {row["word"]: at_least(row["items"], deviations=2) / part for row in rows if row["word"] is not None}
    return items, WordSample(counts, mostly=2 * items >= part * total)


def at_least(mean: float, *, deviations: float) -> float:
    """How many there are where there are ``mean`` on the average, if so many standard deviations fewer (Poisson)."""
    return mean - deviations * math.sqrt(mean)
