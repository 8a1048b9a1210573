"""Cached statistics that choose the plan of a search: vector counts and common words of a scope."""

import math

import asyncpg
import msgspec

from app.base.ttl_cache import TTLCache
from app.features.store.search.sql import SearchScope, count_vectors, sample_words
from app.features.store.vectors import NeighbourQuery

MAX_COUNTED = 20_000
"""Vectors are counted up to this number."""
COUNT_TTL_SECONDS = 30.0

MIN_SAMPLED_VECTORS = 5_000
"""Scopes with fewer vectors are not sampled."""
SAMPLE_ITEMS = 2_000
"""Approximate number of items read for a sample, of all tenants; ten times as many if few of them are in the scope."""
MIN_SCOPE_ITEMS = 500
"""Items of the scope that make a sample large enough."""
MIN_WORD_ITEMS = 10
"""Items of a sample that must have a word: fewer are too much chance."""
SAMPLE_TTL_SECONDS = 600.0

MAX_CACHED_KEYS = 20_000


class VectorCount(msgspec.Struct, frozen=True):
    """``own`` vectors in the scope (counted up to ``MAX_COUNTED``), of about ``total`` of all tenants."""

    own: int
    total: int

    @property
    def share(self) -> float:
        """The share of the vectors that an HNSW scan visits which are in the scope."""
        return max(self.own, 1) / max(self.own, self.total, 1)


class VectorCounts:
    """Vector counts of scopes, cached for ``COUNT_TTL_SECONDS``."""

    def __init__(self) -> None:
        self._counts: TTLCache[tuple[SearchScope, int], VectorCount] = TTLCache(MAX_CACHED_KEYS, COUNT_TTL_SECONDS)

    async def get(self, connection: asyncpg.Connection, scope: SearchScope, near: NeighbourQuery) -> VectorCount:
        """Count the vectors in ``scope`` that can be compared with ``near``."""
        count = self._counts.get((scope, near.space))
        if count is None:
            text, values = count_vectors(scope, near, MAX_COUNTED)
            row = await connection.fetchrow(text, *values)
            count = VectorCount(row["own"], row["total"])
            self._counts.put((scope, near.space), count)
        return count


class WordSample(msgspec.Struct, frozen=True):
    """Word statistics of a scope, estimated from a sample. ``counts``: lower bounds of the items that have a word.

    Words that are rare in the sample are left out. ``dominant``: the scope holds most items of all tenants.
    """

    counts: dict[str, float]
    dominant: bool


UNKNOWN = WordSample({}, dominant=False)


class WordStatistics:
    """Word samples of scopes, cached for ``SAMPLE_TTL_SECONDS``."""

    def __init__(self) -> None:
        self._samples: TTLCache[SearchScope, WordSample] = TTLCache(MAX_CACHED_KEYS, SAMPLE_TTL_SECONDS)

    async def get(self, connection: asyncpg.Connection, scope: SearchScope, count: VectorCount) -> WordSample:
        """Return the sample of ``scope``, ``UNKNOWN`` for a small one."""
        if count.own < MIN_SAMPLED_VECTORS:
            return UNKNOWN
        found = self._samples.get(scope)
        if found is None:
            self._samples.put(scope, UNKNOWN)  # concurrent searches do not sample too
            total = max(count.own, count.total)
            items, found = await _sample(connection, scope, total, SAMPLE_ITEMS)
            if items < MIN_SCOPE_ITEMS:
                _, found = await _sample(connection, scope, total, 10 * SAMPLE_ITEMS)
            self._samples.put(scope, found)
        return found


async def _sample(connection: asyncpg.Connection, scope: SearchScope, total: int, read: int) -> tuple[int, WordSample]:
    """Read about ``read`` of ``total`` items. Return how many of them are in ``scope``, and their sample."""
    share = min(1.0, read / total)
    text, values = sample_words(scope, share, MIN_WORD_ITEMS)
    rows = await connection.fetch(text, *values)
    items = next(row["items"] for row in rows if row["word"] is None)
    counts = {row["word"]: at_least(row["items"], deviations=2) / share for row in rows if row["word"] is not None}
    return items, WordSample(counts, dominant=2 * items >= share * total)


def at_least(mean: float, *, deviations: float) -> float:
    """Return ``mean`` minus that many standard deviations of a Poisson distribution."""
    return mean - deviations * math.sqrt(mean)
