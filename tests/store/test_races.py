"""Concurrent puts of one item from several processes: one wins, with its own vectors and no others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.base.ids import new_id
from app.features.store.index.indexing import ItemWriter, PutEntry
from app.features.store.service import StoreService
from app.features.store.vectors import ItemVector, half_vector
from app.infra.db.engine import Database
from app.providers.embeddings.hashing import hash_text
from tests.store.conftest import Store, Tenant

TENANT = new_id()
PROCESSES, ROUNDS, KEYS = 3, 40, 4


def item(key: str, parts: int) -> PutEntry:
    text = f"{key} {parts}"
    return PutEntry(
        tenant_id=TENANT,
        namespace="a.",
        key=key,
        item_id=new_id(),
        value=f'{{"parts": {parts}}}',
        index=None,
        words=text,
        version=1,
        ttl_minutes=None,
        vectors=[ItemVector(384, 16, part, half_vector(hash_text(text, 384), 384)) for part in range(parts)],
    )


@pytest.fixture
async def databases(fresh_database_url: str) -> AsyncIterator[list[Database]]:
    databases = [Database(fresh_database_url, requests=1, engine=4) for _ in range(PROCESSES)]
    yield databases
    for database in databases:
        await database.aclose()


async def test_every_item_has_only_the_vectors_of_its_value(databases: list[Database]) -> None:
    processes = [ItemWriter(database) for database in databases]
    for process in processes:
        process.start()

    async def work(process: ItemWriter, seed: int) -> None:
        for number in range(ROUNDS):
            await asyncio.gather(*(process.put(item(str(key), (number + key + seed) % 4)) for key in range(KEYS)))

    await asyncio.gather(*(work(process, seed) for seed, process in enumerate(processes)))
    for process in processes:
        await process.aclose()
    async with databases[0].engine_connection() as connection:
        rows = await connection.fetch(
            "select i.key, (i.value->>'parts')::int as parts, count(v.item_id) as vectors"
            " from store_items i left join store_vectors_384 v on v.item_id = i.item_id and v.tenant_id = i.tenant_id"
            " group by 1, 2"
        )
        every = await connection.fetchval("select count(*) from store_vectors_384")
    assert len(rows) == KEYS
    assert all(row["parts"] == row["vectors"] for row in rows)
    assert every == sum(row["vectors"] for row in rows)


async def test_a_put_that_is_cancelled_or_comes_during_shutdown_stores_all_or_nothing(
    store: Store, ours: Tenant
) -> None:
    puts = [asyncio.ensure_future(ours.put("a", str(number), {"text": f"number {number}"})) for number in range(50)]
    await asyncio.sleep(0)
    for put in puts[::2]:
        put.cancel()
    await asyncio.gather(*puts, return_exceptions=True)
    service: StoreService = store.service.services.features.store
    await service.aclose()
    items, vectors = await store.counts("store_items", "store_vectors_384")
    assert items == vectors >= 25
