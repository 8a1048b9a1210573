"""The items of the store's benchmark, and a database that holds them: of three tenants, 89 %, 10 % and 1 %."""

import random
import statistics
from collections.abc import Sequence

import asyncpg
from pgvector import HalfVector
from pgvector.asyncpg import register_vector

from app.base.ids import new_id
from app.features.store.vectors import half_vector
from app.providers.embeddings.hashing import hash_text
from app.security.access.structs import tenant_id_of

WIDTH = 384
SPACE = 16
"""Of the first embedder of the first version."""
PATH = "bench."
SHARES = {"large": 89, "middle": 10, "small": 1}
TOPICS, WORDS, COMMON = 500, 40, 200
TEN = 10

INDEX = "create index store_vectors_384_near_idx on store_vectors_384 using hnsw (embedding halfvec_cosine_ops)"
WORDS_INDEX = "create index store_items_words_idx on store_items using gin (words) with (fastupdate = off)"
COPIED = """
insert into store_items (tenant_id, namespace, key, item_id, value, words, version)
  select tenant_id, 'bench.', key, item_id, jsonb_build_object('text', words),
    to_tsvector('simple', words) || array_to_tsvector(array['@' || tenant_id]), 1
  from loaded;
insert into store_vectors_384 (tenant_id, item_id, space, part, namespace, embedding)
  select tenant_id, item_id, 16, 0, 'bench.', vector from loaded;
truncate loaded
"""
BARE_TABLE = """
create table if not exists bare_items (tenant_id uuid, namespace text, key text, value jsonb,
  created_at timestamptz default now(), primary key (tenant_id, namespace, key))
"""


def sentence(dice: random.Random, length: int) -> str:
    topic = dice.randrange(TOPICS)
    return " ".join(
        f"common{dice.randrange(COMMON)}" if dice.random() < 0.3 else f"topic{topic}x{dice.randrange(WORDS)}"
        for _ in range(length)
    )


def vector(text: str) -> HalfVector:
    return half_vector(hash_text(text, WIDTH), WIDTH)


def milliseconds(times: Sequence[float]) -> float:
    return round(statistics.median(times) * 1000, 2)


async def prepare(url: str, count: int) -> None:
    """``count`` items; what an earlier run has put is removed."""
    connection = await asyncpg.connect(url)
    try:
        there = await connection.fetchval("select count(*) from store_items where namespace = $1", PATH)
        if not there:
            await _load(connection, count)
        elif there != count:
            raise SystemExit(f"the data folder holds {there} items and not {count}: pass another --data")
        await connection.execute("delete from store_items where namespace <> 'bench.'", timeout=300)
        await connection.execute("drop table if exists bare_items")
        await connection.execute(BARE_TABLE)
        await connection.execute("vacuum analyze", timeout=300)
    finally:
        await connection.close()


async def _load(connection: asyncpg.Connection, count: int) -> None:
    await register_vector(connection)
    await connection.execute("drop index store_vectors_384_near_idx; drop index store_items_words_idx")
    await connection.execute(
        "create temp table loaded (tenant_id uuid, key text, item_id uuid, words text, vector halfvec(384))"
    )
    owners = [tenant_id_of(name) for name, share in SHARES.items() for _ in range(share)]
    dice = random.Random(1)
    for start in range(0, count, 5000):
        rows = []
        for number in range(start, min(count, start + 5000)):
            text = sentence(dice, 20)
            rows.append((owners[number % 100], str(number), new_id(), text, vector(text)))
        await connection.copy_records_to_table("loaded", records=rows)
        await connection.execute(COPIED)
    await connection.execute("set maintenance_work_mem = '512MB'")
    for statement in (INDEX, WORDS_INDEX):
        await connection.execute(statement, timeout=500)
