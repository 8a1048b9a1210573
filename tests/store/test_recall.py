"""Recall and plans of vector searches, for tenants with nearly all vectors and with a hundredth of them."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from uuid import UUID

import pytest

from app.base.ids import new_id
from app.features.store.index.indexing import PutEntry, put_items
from app.features.store.search import hybrid_search
from app.features.store.search.filters import FilterCondition, conditions_of
from app.features.store.search.hybrid_search import SearchQuery, StoreSearch
from app.features.store.search.sql import (
    CUSTOM_PLAN_SETTINGS,
    SEARCH_SETTINGS,
    BoundSql,
    SearchScope,
    exact_scan,
    hnsw_scan,
    items_page,
    newest_items,
)
from app.features.store.vectors import ItemVector, NeighbourQuery, half_vector, prepare_connection
from app.infra.db.engine import Database
from app.providers.embeddings.hashing import hash_text
from tests.database import clone, drop, execute
from tests.store.conftest import always_hnsw

SMALL, LARGE = new_id(), new_id()
ROWS, SHARE = 4000, 100
SPACE = 16
TEN = 10
QUERIES = 20


def sentence(dice: random.Random, length: int) -> str:
    """Return words of one topic of forty, and some common ones."""
    topic = dice.randrange(40)
    return " ".join(
        f"word{dice.randrange(50)}" if dice.random() < 0.3 else f"topic{topic}x{dice.randrange(30)}"
        for _ in range(length)
    )


async def fill(url: str) -> None:
    """One tenant has a hundredth of the items, another one all others."""
    database = Database(url, requests=2, engine=2)
    dice = random.Random(7)
    items = [
        PutEntry(
            tenant_id=SMALL if number % SHARE == 0 else LARGE,
            namespace="a." if number % 2 else "b.",
            key=str(number),
            item_id=new_id(),
            value=f'{{"odd": {str(number % 2 == 1).lower()}}}',
            index=None,
            words=None,
            version=1,
            ttl_minutes=None,
            vectors=[ItemVector(384, SPACE, 0, half_vector(hash_text(sentence(dice, 20), 384), 384))],
        )
        for number in range(ROWS)
    ]
    async with database.engine_connection() as connection:
        for start in range(0, ROWS, 250):
            await put_items(connection, items[start : start + 250])
    await execute(url, "analyze")
    await database.aclose()


@pytest.fixture(scope="module")
def filled_url(server_url: str) -> Iterator[str]:
    """A database with items, which the tests only read."""
    url = asyncio.run(clone(server_url))
    asyncio.run(fill(url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
async def database(filled_url: str) -> AsyncIterator[Database]:
    database = Database(filled_url, requests=2, engine=2)
    yield database
    await database.aclose()


async def recall(database: Database, tenant: UUID, path: str = "", odd: bool | None = None) -> float:
    """Return the share of the ten nearest items that searches find."""
    dice = random.Random(8)
    search = StoreSearch()
    only = "" if odd is None and not path else " and namespace = " + ("'a.'" if odd or path == "a." else "'b.'")
    found = 0
    for _ in range(QUERIES):
        vector = half_vector(hash_text(sentence(dice, 12), 384), 384)
        query = SearchQuery(
            scope=SearchScope(tenant, path),
            text="?",
            near=[NeighbourQuery(384, SPACE, vector)],
            conditions=conditions_of({} if odd is None else {"odd": odd}),
            limit=TEN,
            offset=0,
        )
        async with database.tuned(tenant, SEARCH_SETTINGS) as connection:
            rows = await search.search(connection, query)
            true = await connection.fetch(
                "with mine as materialized"
                f" (select item_id, embedding from store_vectors_384 where tenant_id = $1{only})"
                f" select item_id from mine order by embedding <=> $2 limit {TEN}",
                tenant,
                vector,
            )
        assert len(rows) == len(true) == TEN
        found += len({one.row["item_id"] for one in rows} & {row["item_id"] for row in true})
    return found / (QUERIES * TEN)


async def test_the_ten_nearest_are_found_for_a_tenant_with_a_hundredth_of_the_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await recall(database, SMALL) == 1
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", always_hnsw)
    assert await recall(database, SMALL) >= 0.95
    assert await recall(database, LARGE) >= 0.95


SCOPE = SearchScope(LARGE, "")
NEAR = NeighbourQuery(384, SPACE, half_vector(hash_text("word1 topic2x3", 384), 384))
FILTER = conditions_of({"odd": True, "n": {"$gt": 1}})


async def plan(database: Database, asked: BoundSql, settings: str = SEARCH_SETTINGS) -> str:
    """Return the plan of a statement."""
    text, values = asked
    async with database.tuned(LARGE, settings) as connection:
        await prepare_connection(connection)
        return "\n".join(row[0] for row in await connection.fetch(f"explain (costs off) {text}", *values))


@pytest.mark.parametrize("conditions", [None, (), FILTER], ids=["no condition", "time", "filter"])
async def test_an_hnsw_scan_uses_the_vector_index_and_reads_items_by_key(
    database: Database, conditions: Sequence[FilterCondition] | None
) -> None:
    found = await plan(database, hnsw_scan(SCOPE, NEAR, 20, conditions))
    assert "Index Scan using store_vectors_384_near_idx" in found
    assert "Sort" not in found
    assert ("Index Scan using store_items_id_idx" in found) == (conditions is not None)


async def test_an_exact_scan_reads_only_its_scope(database: Database) -> None:
    found = await plan(database, exact_scan(SCOPE, NEAR, 20, None))
    assert "Index Scan using store_vectors_384_mine_idx" in found
    assert "near_idx" not in found
    found = await plan(database, exact_scan(SCOPE, NEAR, 20, FILTER))
    assert "Index Scan using store_vectors_384_pkey" in found
    assert "near_idx" not in found


async def test_a_page_is_fetched_by_key(database: Database) -> None:
    assert "Index Scan using store_items_id_idx" in await plan(database, items_page(SCOPE, [LARGE], 10, 0))


async def test_a_search_by_words_uses_the_index_of_words(database: Database) -> None:
    """The query of ``store_matches``, which bypasses row level security."""
    asked = "select item_id from store_items i where i.words @@ (('''@' || $1::uuid || '''')::tsquery && $2::tsquery)"
    async with database.engine_connection() as connection:
        rows = await connection.fetch(f"explain (costs off) {asked}", LARGE, "word1")
    assert "Bitmap Index Scan on store_items_words_idx" in "\n".join(row[0] for row in rows)


async def test_the_newest_items_are_found_by_index(database: Database) -> None:
    found = await plan(database, newest_items(SCOPE, (), 10, 0), CUSTOM_PLAN_SETTINGS)
    assert "Index Scan Backward using store_items_newest_idx" in found
    assert "Sort" not in found


async def test_a_namespace_and_a_filter_keep_the_recall(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for choice in (hybrid_search.prefers_exact_scan, always_hnsw):
        monkeypatch.setattr(hybrid_search, "prefers_exact_scan", choice)
        assert await recall(database, LARGE, "a.") >= 0.95
        assert await recall(database, LARGE, odd=True) >= 0.95
        assert await recall(database, SMALL, odd=False) >= 0.95
