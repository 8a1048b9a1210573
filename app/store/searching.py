"""Searches by a question: the nearest vectors and the best words, fused by reciprocal rank.

Where few items come into question each of them is compared. Where many do, the index of vectors is walked on until
enough of them have passed the conditions (pgvector's iterative scan): without it a tenant that owns a hundredth of the
rows would find a twentieth of what it should. Should the walk end early, each item is compared after all.
"""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import TSQUERY

from app.db.base import UUIDType
from app.db.session import Reader
from app.store.filters import Condition
from app.store.indexing import Near
from app.store.names import range_of
from app.store.queries import SHOWN
from app.store.tables import HalfVector, store_items, store_vectors

FEW = 2000
"""Items that are compared one by one."""

DEEPEST = 1000
"""Items behind which a search by a question has no pages."""

LEAST_POOL = 100
"""What each ranking gives to the fusion at the least."""

RANK = 60
"""Of the fusion: how little a place more or less counts (https://doi.org/10.1145/1571941.1572114)."""

LOOSE = 2000
"""Items with any of the words whose rank is computed, where no more than a few have all of them."""

MOST_WORDS = 1000
"""Characters of a question whose words are looked for."""

_STOP = """
a about am an and any are as at be been but by can could did do does for from had has have he her him his how i if in
into is it its me my of on or our she so some that the their them then there they this to us was we were what when where
which who whom why will with would you your
"""
STOP = frozenset(_STOP.split())
"""Words of questions that say nothing, in English; left out where others remain."""

_WORD = re.compile(r"\w+")

_PREPARE = sa.text("""
select set_config('plan_cache_mode', 'force_custom_plan', true),
  set_config('hnsw.iterative_scan', 'relaxed_order', true),
  set_config('hnsw.ef_search', :ef, true), set_config('hnsw.max_scan_tuples', '40000', true),
  set_config('hnsw.scan_mem_multiplier', '4', true),
  (select count(*) from (
    select from store_items where tenant_id = :tenant and namespace >= :first and namespace < :last limit :most) few)
  as many
""")
"""Each tenant has a plan of its own: what is right for one with ten items is wrong for one with a million."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and which part of the answer is wanted.

    ``conditions`` say which items come into question; ``filtered``, whether by more than their place.
    """

    tenant_id: UUID
    path: str
    text: str
    near: Sequence[Near]
    conditions: Sequence[Condition]
    filtered: bool
    limit: int
    offset: int

    @property
    def pool(self) -> int:
        """How many of each ranking are fused."""
        return max(LEAST_POOL, 2 * (self.limit + self.offset))


async def search(session: Reader, question: Question) -> Sequence[Row[Any]]:
    """A page of the items that answer best, with their ``score``: 1 for the first of every ranking."""
    first, last = range_of(question.path)
    span = {"tenant": question.tenant_id, "first": first, "last": last}
    found = await session.first(_PREPARE, {**span, "most": FEW + 1, "ef": str(min(1000, question.pool))})
    assert found is not None
    if found.many > FEW:
        rows = await session.all(_page(question, [*_nearest(question), _worded(question)]))
        if len(rows) == question.limit:
            return rows
    return await session.all(_page(question, _compared(question)))


def _compared(question: Question) -> list[sa.Select[Any]]:
    """Rankings out of a look at every item."""
    mine = (
        sa.select(store_items.c.item_id, store_items.c.words)
        .where(*question.conditions)
        .cte("mine")
        .prefix_with("materialized")
    )
    rankings = []
    for near in question.near:
        vectors = store_vectors[near.width].c
        distance = sa.func.min(_distance(near)).label("distance")
        rankings.append(
            sa.select(vectors.item_id, distance)
            .join(mine, mine.c.item_id == vectors.item_id)
            .where(*_in_space(question, near))
            .group_by(vectors.item_id)
            .order_by(distance)
            .limit(question.pool)
        )
    asked = sa.select(_any_of(_words(question.text))).scalar_subquery()
    rank = (-sa.func.ts_rank(mine.c.words, asked, 1)).label("distance")
    worded = sa.select(mine.c.item_id, rank).where(mine.c.words.op("@@")(asked)).order_by(rank).limit(question.pool)
    return [*rankings, worded]


def _nearest(question: Question) -> list[sa.Select[Any]]:
    """Rankings out of the walk over the index of vectors."""
    rankings = []
    for near in question.near:
        vectors = store_vectors[near.width].c
        distance = _distance(near)
        walk = (
            sa.select(vectors.item_id, distance.label("distance"))
            .join(
                store_items,
                sa.and_(store_items.c.item_id == vectors.item_id, store_items.c.tenant_id == vectors.tenant_id),
            )
            .where(*_in_space(question, near), *question.conditions)
            .order_by(distance)
            .limit(question.pool)
            .subquery()
        )
        nearest = sa.func.min(walk.c.distance).label("distance")
        rankings.append(sa.select(walk.c.item_id, nearest).group_by(walk.c.item_id))
    return rankings


def _worded(question: Question) -> sa.Select[Any]:
    """A ranking out of the index of words: items with all of them, else some of those with any."""
    first, last = range_of(question.path)
    found = sa.func.store_words(
        _all_of(_words(question.text)),
        _any_of(_words(question.text)),
        sa.literal(first, sa.Text),
        sa.literal(last, sa.Text),
        sa.literal(LOOSE, sa.Integer),
        sa.literal(LOOSE if question.filtered else question.pool, sa.Integer),
    ).table_valued(sa.column("item_id", UUIDType), sa.column("rank", sa.Float), name="found")
    distance = (-found.c.rank).label("distance")
    return (
        sa.select(found.c.item_id, distance)
        .join(store_items, store_items.c.item_id == found.c.item_id)
        .where(*question.conditions)
        .order_by(distance)
        .limit(question.pool)
    )


def _page(question: Question, rankings: Sequence[sa.Select[Any]]) -> sa.Select[Any]:
    """The fusion of ``rankings``, and the page of it."""
    places = []
    for ranking in rankings:
        found = ranking.subquery()
        place = sa.func.row_number().over(order_by=(found.c.distance, found.c.item_id.desc()))
        places.append(sa.select(found.c.item_id, (1.0 / sa.cast(RANK + place, sa.Double)).label("worth")))
    every = sa.union_all(*places).subquery()
    best = (RANK + 1) / len(rankings)
    score = (sa.func.sum(every.c.worth) * sa.cast(best, sa.Double)).label("score")
    fused = sa.select(every.c.item_id, score).group_by(every.c.item_id).cte("fused")
    return (
        sa.select(*SHOWN, fused.c.score)
        .join(fused, fused.c.item_id == store_items.c.item_id)
        .where(store_items.c.tenant_id == question.tenant_id)
        .order_by(fused.c.score.desc(), store_items.c.item_id.desc())
        .limit(question.limit)
        .offset(question.offset)
    )


def _in_space(question: Question, near: Near) -> list[Condition]:
    vectors = store_vectors[near.width].c
    first, last = range_of(question.path)
    return [
        vectors.tenant_id == question.tenant_id,
        vectors.space == near.space,
        vectors.namespace >= first,
        vectors.namespace < last,
    ]


def _distance(near: Near) -> sa.ColumnElement[Any]:
    # as a subquery it is read once and not for every row
    wanted = sa.select(sa.cast(sa.literal(near.vector, sa.Text), HalfVector(near.width))).scalar_subquery()
    return store_vectors[near.width].c.embedding.op("<=>", return_type=sa.Double())(wanted)


def _words(text: str) -> str:
    """``text`` without words that say nothing, unless no others are there."""
    text = text[:MOST_WORDS]
    rest = _WORD.sub(lambda word: " " if word[0].lower() in STOP else word[0], text)
    return rest if _WORD.search(rest) else text


def _all_of(words: str) -> sa.ColumnElement[Any]:
    return sa.func.plainto_tsquery(sa.literal_column("'simple'"), words)


def _any_of(words: str) -> sa.ColumnElement[Any]:
    asked = sa.func.replace(sa.cast(_all_of(words), sa.Text), "&", "|")
    return sa.cast(asked, TSQUERY)
