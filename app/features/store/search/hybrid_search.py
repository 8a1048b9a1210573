"""Searches by a question: the nearest vectors and the best words, fused by reciprocal rank.

Where few vectors come into question each of them is compared. Where many do, the index of vectors is walked on until
enough of them have passed (pgvector's iterative scan): without it a tenant that owns a hundredth of the rows would find
a twentieth of what it should. Should the walk end early, each vector is compared after all.
"""

import functools
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.base.offload import MAX_ANSWER_BYTES
from app.features.store.index.indexing import NeighbourQuery
from app.features.store.search.filters import FilterCondition
from app.features.store.search.lexical_ranking import LexicalQuery, LexicalRanking
from app.features.store.search.sql import EF_SEARCH, BoundSql, SearchScope, exact_scan, hnsw_scan, page
from app.features.store.search.statistics import VectorCount, VectorCounts, at_least

MAX_DEPTH = 1000
"""Items behind which a search by a question has no pages."""

DEPTHS = (10, 50, 200, MAX_DEPTH)
"""Down to which places the vectors are walked to: pages above the same of them are cut from one ranking."""

MIN_POOL = 50
"""What each ranking gives to the fusion, where that costs next to nothing."""

SPARE = 10
"""Items more than a page needs, for what may be over, or there with several vectors."""

FEW = 2
"""Items more than a page needs that are fetched at first."""

AT_ONCE = 32
"""Items read by one statement: with the largest values these are as many bytes as an answer may have."""

RANK = 60
"""Of the fusion: how little a place more or less counts (https://doi.org/10.1145/1571941.1572114)."""

Conditions = Sequence[FilterCondition] | None
"""What items are asked for on the way; None: nothing, not even whether their time is over."""


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, which items come into question by ``conditions``, and which part of the answer is wanted."""

    place: SearchScope
    text: str
    near: Sequence[NeighbourQuery]
    conditions: Sequence[FilterCondition]
    limit: int
    offset: int

    @property
    def depth(self) -> int:
        """How many items a ranking by vectors must have at the least."""
        return next(depth for depth in DEPTHS if self.limit + self.offset <= depth)

    @property
    def wanted(self) -> int:
        """How many items are looked at for a page."""
        return self.depth + SPARE

    @property
    def pool(self) -> int:
        """How many of each ranking are fused at the most."""
        return max(MIN_POOL, 2 * self.wanted)

    def lacks(self, rankings: Sequence[Sequence[UUID]], over: int) -> bool:
        """Whether any of ``rankings``, the last one by words, was cut and is too short without what is ``over``."""
        cuts = [self.depth] * (len(rankings) - 1) + [self.pool]
        end = self.limit + self.offset
        return any(cut <= len(one) < end + over for one, cut in zip(rankings, cuts, strict=True))


DEARER = 9
"""Times that a candidate of the walk is taken to cost what a vector costs that is only compared: an estimate."""


def compares(size: VectorCount, wanted: int) -> bool:
    """Whether a look at each vector costs less than a walk that finds ``wanted``."""
    return size.own <= DEARER * max(EF_SEARCH, wanted / size.share)


class FoundRow(msgspec.Struct, frozen=True):
    """An item's row, and its ``score``, where there was a question."""

    row: asyncpg.Record
    score: float | None


class StoreSearch:
    """Answers questions, with what this process knows of sizes."""

    def __init__(self) -> None:
        self._sizes = VectorCounts()
        self._wording = LexicalRanking()

    async def search(self, connection: asyncpg.Connection, question: SearchQuery) -> list[FoundRow]:
        """A page of the items that answer best: ``score`` is 1 for the first of every ranking.

        ``connection`` is in a transaction of the tenant with ``SETTINGS``.
        """
        found, _ = await self.page(connection, question)
        return found

    async def page(self, connection: asyncpg.Connection, question: SearchQuery) -> tuple[list[FoundRow], bool]:
        """The same, and whether the page was cut because its items are large."""
        conditions: Conditions = question.conditions or None
        rankings = await self._ranked(connection, question, conditions)
        found, over, cut = await _page(connection, question, fused(rankings))
        if conditions is None and question.lacks(rankings, over):
            # what is over has taken the places of what is not
            rankings = await self._ranked(connection, question, ())
            found, _, cut = await _page(connection, question, fused(rankings))
        return found, cut

    async def _ranked(
        self, connection: asyncpg.Connection, question: SearchQuery, conditions: Conditions
    ) -> list[list[UUID]]:
        """All rankings: those by vectors, and the one by words."""
        sizes = [await self._sizes.of(connection, question.place, near) for near in question.near]
        nears = zip(question.near, sizes, strict=True)
        rankings = [await _near(connection, question, near, size, conditions) for near, size in nears]
        wanted = LexicalQuery(
            place=question.place,
            text=question.text,
            conditions=conditions,
            max_rows=question.pool,
            size=max(sizes, key=lambda size: size.own, default=None),
        )
        return [*rankings, await self._wording.ranked(connection, wanted)]


async def _near(
    connection: asyncpg.Connection,
    question: SearchQuery,
    near: NeighbourQuery,
    size: VectorCount,
    conditions: Conditions,
) -> list[UUID]:
    """A ranking by vectors."""
    if compares(size, question.wanted):
        return await _compared(connection, question, near, conditions)
    max_rows = question.wanted
    if conditions is None:  # what the first round of the walk nearly always brings; another one costs as much again
        in_view = int(at_least(EF_SEARCH * size.share, deviations=1))
        max_rows = max(question.depth, min(question.wanted, in_view))
    while True:
        text, values = hnsw_scan(question.place, near, max_rows, conditions)
        rows = await connection.fetch(text, *values)
        found = _ranked(rows)
        if len(found) >= question.depth:
            return found[: question.pool]
        if len(rows) < max_rows:
            return await _compared(connection, question, near, conditions)
        max_rows *= 4


async def _compared(
    connection: asyncpg.Connection, question: SearchQuery, near: NeighbourQuery, conditions: Conditions
) -> list[UUID]:
    """A ranking by vectors out of a look at each."""
    max_rows = question.pool
    while True:
        text, values = exact_scan(question.place, near, max_rows, conditions)
        rows = await connection.fetch(text, *values)
        found = _ranked(rows)
        if len(found) >= question.pool or len(rows) < max_rows:
            return found[: question.pool]
        max_rows *= 4


def _ranked(rows: Sequence[asyncpg.Record]) -> list[UUID]:
    """The items of ``rows``, the nearest first, each once; of equal ones the newer first."""
    rows = sorted(rows, key=lambda row: row["item_id"].bytes, reverse=True)
    return list(dict.fromkeys(row["item_id"] for row in sorted(rows, key=lambda row: row["distance"])))


async def fetch_page(
    connection: asyncpg.Connection, ask: Callable[[int, int], BoundSql], limit: int, offset: int
) -> tuple[list[asyncpg.Record], bool]:
    """A page of items, and whether it was cut because they are large: one item always passes.

    ``ask`` makes the statement for a limit and an offset. Of a long page few rows are read at once.
    """
    rows: list[asyncpg.Record] = []
    total = 0
    while len(rows) < limit:
        count = min(limit - len(rows), AT_ONCE)
        text, values = ask(count, offset + len(rows))
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
    connection: asyncpg.Connection, question: SearchQuery, ranked: Sequence[tuple[UUID, float]]
) -> tuple[list[FoundRow], int, bool]:
    """The rows of the page, how many items above its end are over, and whether it was cut because they are large."""
    scores = dict(ranked)
    items = list(scores)
    rows: Sequence[asyncpg.Record] = ()
    cut = False
    for some in (items[: question.limit + question.offset + FEW], items):
        ask = functools.partial(page, question.place, some)
        rows, cut = await fetch_page(connection, ask, question.limit, question.offset)
        if cut or len(rows) == question.limit or len(some) == len(items):
            break
    full = cut or len(rows) == question.limit
    passed = rows[-1]["place"] if full else len(some)
    return [FoundRow(row, scores[row["item_id"]]) for row in rows], passed - question.offset - len(rows), cut


def fused(rankings: Sequence[Sequence[UUID]]) -> list[tuple[UUID, float]]:
    """Items by their places in ``rankings``, the best first; of equal ones the newer."""
    scores: dict[UUID, float] = {}
    best = (RANK + 1) / len(rankings)
    for ranking in rankings:
        for place, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + best / (RANK + place)
    return sorted(scores.items(), key=lambda one: (one[1], one[0].bytes), reverse=True)
