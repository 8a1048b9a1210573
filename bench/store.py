"""What the store costs: ``python -m bench.store`` (two or three minutes; ``--quick`` with a tenth of the items).

Puts over HTTP against bare inserts of the same rows, and searches over HTTP against a bare pgvector query, on items of
three tenants: one owns 89 % of them, one 10 %, one 1 %. The neighbours of a search by vectors alone are compared with
the true ones, beside those of the bare query.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg

from app.access.structs import tenant_id_of
from app.base.ids import new_id
from app.db import migrate
from app.db.embedded import EmbeddedDatabase
from app.db.engine import Database
from app.embed.hashing import hashed
from app.store import searching
from app.store.indexing import Near, written
from app.store.queries import below
from app.store.searching import Question
from bench.processes import Server, cpu_seconds, free_port, serving
from bench.starting import READY

WIDTH = 384
SPACE = 16
SHARES = {"large": 89, "middle": 10, "small": 1}
TOPICS, WORDS, COMMON = 500, 40, 200
PEPPER = "0123456789abcdef" * 2
TEN = 10
INDEX = "create index store_vectors_384_near_idx on store_vectors_384 using hnsw (embedding halfvec_cosine_ops)"
WORDS_INDEX = "create index store_items_words_idx on store_items using gin (words)"
COPIED = """
insert into store_items (tenant_id, namespace, key, item_id, value, words, version)
  select tenant_id, 'bench.', key, item_id, jsonb_build_object('text', words),
    to_tsvector('simple', words) || array_to_tsvector(array['@' || tenant_id]), 1
  from loaded;
insert into store_vectors_384 (tenant_id, item_id, space, part, namespace, embedding)
  select tenant_id, item_id, 16, 0, 'bench.', vector::halfvec(384) from loaded;
truncate loaded
"""
BARE_SEARCH = """
select item_id from store_vectors_384 where tenant_id = $1 and space = 16
order by embedding <=> $2::text::halfvec(384) limit 10
"""
WALK = (
    "set hnsw.iterative_scan = relaxed_order; set hnsw.ef_search = 100; set plan_cache_mode = force_custom_plan;"
    " set hnsw.max_scan_tuples = 40000"
)
BARE_INSERT = "insert into bare_items (tenant_id, namespace, key, value) values ($1, 'bench.', $2, $3::jsonb)"
BARE_VECTOR = """
with item as (
  insert into store_items (tenant_id, namespace, key, item_id, value, words, version)
  values ($1, 'bare.', $2, $3, $4::jsonb, to_tsvector('simple', $5), 1)
)
insert into store_vectors_384 (tenant_id, item_id, space, part, namespace, embedding)
values ($1, $3, 16, 0, 'bare.', $6::text::halfvec(384))
"""


def sentence(dice: random.Random, length: int) -> str:
    topic = dice.randrange(TOPICS)
    return " ".join(
        f"common{dice.randrange(COMMON)}" if dice.random() < 0.3 else f"topic{topic}x{dice.randrange(WORDS)}"
        for _ in range(length)
    )


def vector(text: str) -> str:
    return written(hashed(text, WIDTH), WIDTH)


async def load(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("drop index store_vectors_384_near_idx; drop index store_items_words_idx")
    await connection.execute(
        "create temp table loaded (tenant_id uuid, key text, item_id uuid, words text, vector text);"
        "create table bare_items (tenant_id uuid, namespace text, key text, value jsonb, created_at timestamptz default"
        " now(), primary key (tenant_id, namespace, key))"
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
    for statement in (INDEX, WORDS_INDEX, "analyze"):
        await connection.execute(statement, timeout=500)
    await connection.close()


async def recalls(url: str, questions: int) -> dict[str, Any]:
    """The bare query and the store's own ranking by vectors: time, and the part of the ten nearest that they find."""
    database = Database(url, requests=1, engine=1)
    bare, exact = await asyncpg.connect(url), await asyncpg.connect(url)
    await bare.execute(WALK)
    await exact.execute("set enable_indexscan = off; set plan_cache_mode = force_custom_plan")
    found: dict[str, Any] = {}
    for name in SHARES:
        tenant = tenant_id_of(name)
        dice = random.Random(2)
        times: dict[str, list[float]] = {"bare": [], "store": []}
        hits = {"bare": 0, "store": 0}
        for _ in range(questions):
            near = vector(sentence(dice, 8))
            true = {row["item_id"] for row in await exact.fetch(BARE_SEARCH, tenant, near)}
            began = time.perf_counter()
            rows = await bare.fetch(BARE_SEARCH, tenant, near)
            times["bare"].append(time.perf_counter() - began)
            hits["bare"] += len(true & {row["item_id"] for row in rows})
            began = time.perf_counter()
            ids = await neighbours(database, tenant, near)
            times["store"].append(time.perf_counter() - began)
            hits["store"] += len(true & ids)
        for way in ("bare", "store"):
            found[f"{name}, by vectors, {way}"] = {
                "p50_ms": milliseconds(times[way]),
                "recall": round(hits[way] / (questions * TEN), 3),
            }
    await bare.close()
    await exact.close()
    await database.aclose()
    return found


async def neighbours(database: Database, tenant: UUID, near: str) -> set[UUID]:
    question = Question(
        tenant_id=tenant,
        path="bench.",
        text="?",
        near=[Near(WIDTH, SPACE, near)],
        conditions=below(tenant, "bench."),
        filtered=False,
        limit=TEN,
        offset=0,
    )
    async with database.reading(tenant) as session:
        return {row.item_id for row in await searching.search(session, question)}


def milliseconds(times: list[float]) -> float:
    return round(statistics.median(times) * 1000, 2)


@contextlib.contextmanager
def server(url: str, folder: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server, and a key of each tenant."""
    port = free_port()
    own = {
        "DATABASE_URL": url,
        "AGENT_AUTH": "api_key",
        "AGENT_KEY_PEPPER": PEPPER,
        "PORT": str(port),
        "LOG_LEVEL": "warning",
    }
    keys = {}
    for name in SHARES:
        command = [sys.executable, "-m", "app", "keys", "create", "--name", "bench", "--tenant", name]
        environment = {**own, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        keys[name] = done.stdout.strip()
    with serving([sys.executable, "-m", "app", "serve"], port, READY, folder, **own) as running:
        yield running, keys


async def searches(running: Server, keys: dict[str, str], questions: int) -> dict[str, Any]:
    """Whole searches over HTTP, one after the other: vectors and words, fused."""
    found = {}
    for name, key in keys.items():
        async with session(running, key) as http:
            dice = random.Random(3)
            times = []
            for number in range(questions + 5):
                body = {"namespace_prefix": ["bench"], "query": sentence(dice, 6), "limit": TEN}
                began = time.perf_counter()
                async with http.post("/api/v1/store/items/search", json=body) as answer:
                    assert len((await answer.json())["items"]) == TEN
                if number >= 5:
                    times.append(time.perf_counter() - began)
        found[f"{name}, by vectors and words, over HTTP"] = {"p50_ms": milliseconds(times)}
    return found


def session(running: Server, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"http://127.0.0.1:{running.port}", headers={"x-api-key": key})


async def rate(work: Callable[[int], Awaitable[None]], clients: int, seconds: float) -> float:
    """How often ``work`` is done in a second by so many clients."""
    end = time.perf_counter() + seconds
    done = 0

    async def one(client: int) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < end:
            await work(client * 1_000_000 + number)
            number += 1
            done += 1

    await asyncio.gather(*(one(client) for client in range(clients)))
    return round(done / seconds, 1)


async def puts(running: Server, key: str, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with session(running, key) as http:
        for index in (False, None):
            for clients in (1, 32):
                dice = random.Random(4)

                async def put(number: int, index: Any = index, dice: random.Random = dice, mark: int = clients) -> None:
                    value = {"text": sentence(dice, 20)}
                    body = {"namespace": ["put", str(mark)], "key": str(number), "value": value, "index": index}
                    async with http.put("/api/v1/store/items", json=body) as answer:
                        assert answer.status == 204, await answer.text()

                used = cpu_seconds(running.pid)
                name = f"put, {'with words and a vector' if index is None else 'not indexed'}, {clients} clients"
                made = await rate(put, clients, seconds)
                cpu = round((cpu_seconds(running.pid) - used) / (made * seconds) * 1000, 2)
                found[name] = {"per_s": made, "server_cpu_ms": cpu}
    return found


async def inserts(url: str, seconds: float) -> dict[str, Any]:
    """The same rows by a bare program: a statement and a commit each."""
    found: dict[str, Any] = {}
    tenant = tenant_id_of("large")
    pool = await asyncpg.create_pool(url, min_size=32, max_size=32)
    dice = random.Random(5)

    async def plain(number: int) -> None:
        await pool.execute(BARE_INSERT, tenant, f"{new_id()}{number}", json.dumps({"text": sentence(dice, 20)}))

    async def indexed(number: int) -> None:
        text = sentence(dice, 20)
        row = (tenant, f"{new_id()}{number}", new_id(), json.dumps({"text": text}), text, vector(text))
        await pool.execute(BARE_VECTOR, *row)

    for name, work in (("not indexed", plain), ("with words and a vector", indexed)):
        for clients in (1, 32):
            found[f"bare insert, {name}, {clients} clients"] = {"per_s": await rate(work, clients, seconds)}
    await pool.close()
    return found


def measure(count: int, questions: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"items": count}
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = EmbeddedDatabase(folder)
        url = database.start()
        stack.callback(database.stop)
        migrate.upgrade(url)
        asyncio.run(load(url, count))
        found |= asyncio.run(recalls(url, questions))
        with server(url, folder) as (running, keys):
            found |= asyncio.run(searches(running, keys, questions))
            found |= asyncio.run(puts(running, keys["large"], seconds))
        found |= asyncio.run(inserts(url, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 items in place of 100,000")
    quick = parser.parse_args().quick
    print(json.dumps(measure(10_000 if quick else 100_000, 20 if quick else 50, 3 if quick else 6), indent=2))


if __name__ == "__main__":
    main()
