"""Hybrid search: rankings by nearest vectors and by words, combined by reciprocal rank fusion.

A scope with few vectors is scanned exactly. A large one is searched with pgvector's iterative HNSW scan, which runs
until enough vectors have passed the filter: without it a tenant with 1 % of the rows would find 5 % of its neighbours.
If the scan ends early, the scope is scanned exactly after all.
"""

import functools
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.base.offload import MAX_ANSWER_BYTES
from app.features.store.search.filters import FilterCondition
from app.features.store.search.lexical_ranking import LexicalQuery, LexicalRanking
from app.features.store.search.sql import EF_SEARCH, BoundSql, SearchScope, exact_scan, hnsw_scan, items_page
from app.features.store.search.statistics import VectorCount, VectorCounts, at_least
from app.features.store.vectors import NeighbourQuery, prepare_connection

MAX_DEPTH = 1000
"""Limit plus offset of a search with a query."""

DEPTHS = (10, 50, 200, MAX_DEPTH)
"""Depths of rankings; all pages within one depth are cut from the same ranking."""

MIN_POOL = 50
"""Minimum number of items that each ranking contributes to the fusion."""

SPARE_ITEMS = 10
"""Ranked in addition to a page, for items that have expired or have several vectors."""

SPARE_ROWS = 2
"""Fetched in addition to a page at first."""

FETCH_SIZE = 32
"""Items fetched by one statement: with the largest values as many bytes as a response may have."""

RRF_K = 60
"""The constant k of reciprocal rank fusion (https://doi.org/10.1145/1571941.1572114)."""

Conditions = Sequence[FilterCondition] | None
"""Conditions checked during a scan; None: items are not read, so they may have expired."""

HNSW_COST_FACTOR = 9
"""Estimated cost of one HNSW candidate, in exact comparisons."""


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search in ``scope`` by ``text`` and its vectors ``near``, of items that meet ``conditions``."""

    scope: SearchScope
    text: str
    near: Sequence[NeighbourQuery]
    conditions: Sequence[FilterCondition]
    limit: int
    offset: int

    @property
    def depth(self) -> int:
        """Minimum number of items of a ranking by vectors."""
        return next(depth for depth in DEPTHS if self.limit + self.offset <= depth)

    @property
    def candidates(self) -> int:
        """Number of vectors to find for a page."""
        return self.depth + SPARE_ITEMS

    @property
    def pool(self) -> int:
        """Maximum number of items that each ranking contributes."""
        return max(MIN_POOL, 2 * self.candidates)

    def falls_short(self, rankings: Sequence[Sequence[UUID]], expired: int) -> bool:
        """Whether any of ``rankings`` (the last one by words) was cut and is too short without ``expired`` items."""
        cuts = [self.depth] * (len(rankings) - 1) + [self.pool]
        end = self.limit + self.offset
        return any(cut <= len(one) < end + expired for one, cut in zip(rankings, cuts, strict=True))


def prefers_exact_scan(count: VectorCount, candidates: int) -> bool:
    """Whether comparing every vector costs less than an HNSW scan that finds ``candidates``."""
    return count.own <= HNSW_COST_FACTOR * max(EF_SEARCH, candidates / count.share)


class FoundRow(msgspec.Struct, frozen=True):
    """An item's row; ``score`` is None for a search without a query."""

    row: asyncpg.Record
    score: float | None


class StoreSearch:
    """Runs hybrid searches, with cached statistics to choose the scan."""

    def __init__(self) -> None:
        self._counts = VectorCounts()
        self._lexical = LexicalRanking()

    async def search(self, connection: asyncpg.Connection, query: SearchQuery) -> list[FoundRow]:
        """Return a page of the best items; an item that leads every ranking has the ``score`` 1.

        ``connection`` is in a transaction of the tenant with ``SEARCH_SETTINGS``.
        """
        found, _ = await self.page(connection, query)
        return found

    async def page(self, connection: asyncpg.Connection, query: SearchQuery) -> tuple[list[FoundRow], bool]:
        """Return a page as ``search`` does, and whether it was cut because its items are large."""
        conditions: Conditions = query.conditions or None
        rankings = await self._rank(connection, query, conditions)
        found, expired, cut = await _page(connection, query, fuse_rankings(rankings))
        if conditions is None and query.falls_short(rankings, expired):
            # expired items have taken the places of others
            rankings = await self._rank(connection, query, ())
            found, _, cut = await _page(connection, query, fuse_rankings(rankings))
        return found, cut

    async def _rank(
        self, connection: asyncpg.Connection, query: SearchQuery, conditions: Conditions
    ) -> list[list[UUID]]:
        """Return all rankings: those by vectors, then the one by words."""
        if query.near:
            await prepare_connection(connection)
        counts = [await self._counts.get(connection, query.scope, near) for near in query.near]
        rankings = [
            await _rank_by_vectors(connection, query, near, count, conditions)
            for near, count in zip(query.near, counts, strict=True)
        ]
        lexical = LexicalQuery(
            scope=query.scope,
            text=query.text,
            conditions=conditions,
            max_rows=query.pool,
            vectors=max(counts, key=lambda count: count.own, default=None),
        )
        return [*rankings, await self._lexical.rank(connection, lexical)]


async def _rank_by_vectors(
    connection: asyncpg.Connection,
    query: SearchQuery,
    near: NeighbourQuery,
    count: VectorCount,
    conditions: Conditions,
) -> list[UUID]:
    """Rank by distance from ``near``, with the cheaper scan."""
    if prefers_exact_scan(count, query.candidates):
        return await _rank_exactly(connection, query, near, conditions)
    max_rows = query.candidates
    if conditions is None:  # ask for what the first iteration nearly always finds: another one doubles the cost
        first_iteration = int(at_least(EF_SEARCH * count.share, deviations=1))
        max_rows = max(query.depth, min(query.candidates, first_iteration))
    while True:
        text, values = hnsw_scan(query.scope, near, max_rows, conditions)
        rows = await connection.fetch(text, *values)
        found = _distinct_items(rows)
        if len(found) >= query.depth:
            return found[: query.pool]
        if len(rows) < max_rows:
            return await _rank_exactly(connection, query, near, conditions)
        max_rows *= 4


async def _rank_exactly(
    connection: asyncpg.Connection, query: SearchQuery, near: NeighbourQuery, conditions: Conditions
) -> list[UUID]:
    """Rank by distance from ``near``, comparing every vector in the scope."""
    max_rows = query.pool
    while True:
        text, values = exact_scan(query.scope, near, max_rows, conditions)
        rows = await connection.fetch(text, *values)
        found = _distinct_items(rows)
        if len(found) >= query.pool or len(rows) < max_rows:
            return found[: query.pool]
        max_rows *= 4


def _distinct_items(rows: Sequence[asyncpg.Record]) -> list[UUID]:
    """Return the items of ``rows`` once each, the nearest first; of equal ones the newer first."""
    rows = sorted(rows, key=lambda row: row["item_id"].bytes, reverse=True)
    return list(dict.fromkeys(row["item_id"] for row in sorted(rows, key=lambda row: row["distance"])))


async def fetch_page(
    connection: asyncpg.Connection, build: Callable[[int, int], BoundSql], limit: int, offset: int
) -> tuple[list[asyncpg.Record], bool]:
    """Fetch a page of items, and whether it was cut because they are large; it has at least one item.

    ``build`` returns the statement for a limit and an offset. A long page is fetched in several statements.
    """
    rows: list[asyncpg.Record] = []
    total = 0
    while len(rows) < limit:
        count = min(limit - len(rows), FETCH_SIZE)
        text, values = build(count, offset + len(rows))
        some = await connection.fetch(text, *values)
        for row in some:
            total += len(row["value"])
            if rows and total > MAX_ANSWER_BYTES:
                return rows, True
            rows.append(row)
        if len(some) < count:
            break
    return rows, False


async def _page(
    connection: asyncpg.Connection, query: SearchQuery, ranked: Sequence[tuple[UUID, float]]
) -> tuple[list[FoundRow], int, bool]:
    """Return the rows of the page, the number of expired items before its end, and whether it was cut for size."""
    scores = dict(ranked)
    items = list(scores)
    rows: Sequence[asyncpg.Record] = ()
    cut = False
    for some in (items[: query.limit + query.offset + SPARE_ROWS], items):
        build = functools.partial(items_page, query.scope, some)
        rows, cut = await fetch_page(connection, build, query.limit, query.offset)
        if cut or len(rows) == query.limit or len(some) == len(items):
            break
    full = cut or len(rows) == query.limit
    passed = rows[-1]["rank"] if full else len(some)
    return [FoundRow(row, scores[row["item_id"]]) for row in rows], passed - query.offset - len(rows), cut


def fuse_rankings(rankings: Sequence[Sequence[UUID]]) -> list[tuple[UUID, float]]:
    """Combine ``rankings`` by reciprocal rank: (item, score), the best first; of equal ones the newer first."""
    scores: dict[UUID, float] = {}
    best = (RRF_K + 1) / len(rankings)
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + best / (RRF_K + rank)
    return sorted(scores.items(), key=lambda one: (one[1], one[0].bytes), reverse=True)
