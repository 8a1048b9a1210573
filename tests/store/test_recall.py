"""Neighbours are found whether a tenant owns nearly all of the vectors or a hundredth of them."""

import random
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.base.ids import new_id
from app.db.engine import Database
from app.embed.hashing import hashed
from app.store import searching
from app.store.filters import conditions_of
from app.store.indexing import Near, written
from app.store.queries import below
from app.store.searching import Question
from app.store.tables import store_vectors
from app.store.writing import Put, Vector, put
from tests.database import execute

SMALL, LARGE = new_id(), new_id()
ROWS, SHARE = 4000, 100
SPACE = 16
TEN = 10
QUESTIONS = 20

VECTORS = store_vectors[384].c


def sentence(dice: random.Random, length: int) -> str:
    """Words of one topic of forty, and some that all have."""
    topic = dice.randrange(40)
    return " ".join(
        f"word{dice.randrange(50)}" if dice.random() < 0.3 else f"topic{topic}x{dice.randrange(30)}"
        for _ in range(length)
    )


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    """One tenant has a hundredth of the items, another all others."""
    database = Database(fresh_database_url, requests=2, engine=2)
    dice = random.Random(7)
    items = [
        Put(
            tenant_id=SMALL if number % SHARE == 0 else LARGE,
            namespace="a." if number % 2 else "b.",
            key=str(number),
            item_id=new_id(),
            value=f'{{"odd": {str(number % 2 == 1).lower()}}}',
            index=None,
            words=None,
            version=1,
            ttl_minutes=None,
            vectors=[Vector(384, SPACE, 0, written(hashed(sentence(dice, 20), 384), 384))],
        )
        for number in range(ROWS)
    ]
    async with database.engine_connection() as connection:
        for start in range(0, ROWS, 250):
            await put(connection, items[start : start + 250])
    await execute(fresh_database_url, "analyze")
    yield database
    await database.aclose()


async def recall(database: Database, tenant: UUID, path: str = "", odd: bool | None = None) -> float:
    """Which part of the ten nearest items a search finds, over several questions."""
    dice = random.Random(8)
    conditions = [*below(tenant, path), *conditions_of({} if odd is None else {"odd": odd})]
    found = 0
    for _ in range(QUESTIONS):
        vector = written(hashed(sentence(dice, 12), 384), 384)
        near = Near(384, SPACE, vector)
        question = Question(
            tenant_id=tenant,
            path=path,
            text="?",
            near=[near],
            conditions=conditions,
            filtered=odd is not None,
            limit=TEN,
            offset=0,
        )
        async with database.reading(tenant) as session:
            rows = await searching.search(session, question)
        async with database.reading(tenant) as session:
            await session.first(sa.text("select set_config('enable_indexscan', 'off', true)"))
            nearest = sa.select(VECTORS.item_id).where(VECTORS.tenant_id == tenant)
            if odd is not None or path:
                nearest = nearest.where(VECTORS.namespace == ("a." if odd or path == "a." else "b."))
            true = await session.all(nearest.order_by(searching._distance(near)).limit(TEN))
        assert len(rows) == len(true) == TEN
        found += len({row.item_id for row in rows} & {row.item_id for row in true})
    return found / (QUESTIONS * TEN)


async def test_the_ten_nearest_are_found_for_a_tenant_with_a_hundredth_of_the_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await recall(database, SMALL) == 1
    monkeypatch.setattr(searching, "FEW", 5)
    assert await recall(database, SMALL) >= 0.95
    assert await recall(database, LARGE) >= 0.95


async def test_many_items_are_walked_by_the_indexes_of_vectors_and_of_words(database: Database) -> None:
    near = Near(384, SPACE, written(hashed("word1 topic2x3", 384), 384))
    question = Question(
        tenant_id=LARGE,
        path="",
        text="word1",
        near=[near],
        conditions=below(LARGE, ""),
        filtered=False,
        limit=TEN,
        offset=0,
    )
    (walk,) = searching._nearest(question)
    dialect = database._requests.dialect
    compiled = str(walk.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    async with database.engine_connection() as connection:  # as the function does
        plan = await connection.fetch("explain select item_id from store_items where words @@ 'topic2x3'")
    async with database.reading(LARGE) as session:
        await session.first(sa.text("select set_config('hnsw.iterative_scan', 'relaxed_order', true)"))
        plan += await session.all(sa.text(f"explain {compiled}".replace(":", r"\:")))
    lines = [row[0] for row in plan]
    assert any("store_vectors_384_near_idx" in line for line in lines)
    assert any("store_items_words_idx" in line for line in lines)


async def test_a_namespace_and_a_filter_cost_no_neighbours(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (searching.FEW, 5):
        monkeypatch.setattr(searching, "FEW", few)
        assert await recall(database, LARGE, "a.") >= 0.95
        assert await recall(database, LARGE, odd=True) >= 0.95
        assert await recall(database, SMALL, odd=False) >= 0.95
