"""Puts of the store over HTTP against bare inserts of the same rows, in one run.

The two alternate every second or so, and the ratio is the median of the pairs, because disks and neighbours of a
machine vary. The client is the lean one of ``bench.client`` (40 µs a request), so that the server is measured;
``GET /ok`` shows the cost of an empty request.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import msgspec
from pgvector.asyncpg import register_vector

from app.base.ids import new_id
from app.security.access.structs import tenant_id_of
from bench.client import Connection, connect, request
from bench.load import Target
from bench.store_data import sentence, vector

BARE_INSERT = "insert into bare_items (tenant_id, namespace, key, value) values ($1, 'bench.', $2, $3::jsonb)"
BARE_VECTOR = """
with item as (
  insert into store_items (tenant_id, namespace, key, item_id, value, words, version)
  values ($1, 'bare.', $2, $3, $4::jsonb, to_tsvector('simple', $5), 1)
)
insert into store_vectors_384 (tenant_id, item_id, space, part, namespace, embedding)
values ($1, $3, 16, 0, 'bare.', $6)
"""
ROUNDS = 5
"""Of each kind."""

Work = Callable[[int], Awaitable[None]]
"""Runs one operation for the client of that number."""
Way = Callable[[int], AbstractAsyncContextManager[Work]]
"""Opens the connections of so many clients."""


class Done(msgspec.Struct):
    """What was done in one round: how many a second, and the seconds of CPU of the server and PostgreSQL each."""

    rate: float
    server: float
    postgres: float


async def puts(url: str, target: Target, key: str, seconds: float) -> dict[str, Any]:
    """Puts a second, what part of the bare inserts they are, and what they cost."""
    found: dict[str, Any] = {}
    async with asyncpg.create_pool(
        url, min_size=32, max_size=32, init=register_vector, server_settings={"jit": "off"}
    ) as pool:
        for indexed in (False, True):
            ways: dict[str, Way] = {
                "bare": inserting(pool, indexed=indexed),
                "http": putting(target.port, key, indexed=indexed),
                "ok": asking(target.port),
            }
            for clients in (1, 32):
                rounds = [
                    {name: await _round(way, target, clients, seconds / ROUNDS) for name, way in ways.items()}
                    for _ in range(ROUNDS)
                ]
                found[f"{'indexed' if indexed else 'not indexed'}, {clients} clients"] = _summed(rounds)
    return found


def _summed(rounds: list[dict[str, Done]]) -> dict[str, Any]:
    """Return the median of each figure."""

    def middle(figure: Callable[[dict[str, Done]], float], digits: int | None = None) -> float:
        return round(statistics.median(figure(one) for one in rounds), digits)

    return {
        "http_per_s": middle(lambda one: one["http"].rate),
        "bare_per_s": middle(lambda one: one["bare"].rate),
        "of_bare": middle(lambda one: one["http"].rate / one["bare"].rate, 2),
        "ok_per_s": middle(lambda one: one["ok"].rate),
        "insert_then_ok_of_bare": middle(lambda one: one["ok"].rate / (one["ok"].rate + one["bare"].rate), 2),
        "server_cpu_ms": middle(lambda one: one["http"].server * 1000, 2),
        "postgres_cpu_ms": middle(lambda one: one["http"].postgres * 1000, 2),
        "bare_postgres_cpu_ms": middle(lambda one: one["bare"].postgres * 1000, 2),
    }


def putting(port: int, key: str, *, indexed: bool) -> Way:
    """Each client on a connection of its own."""
    dice = random.Random(4)

    def ready() -> bytes:
        body: dict[str, Any] = {"namespace": ["put"], "key": str(new_id()), "value": {"text": sentence(dice, 20)}}
        if not indexed:
            body["index"] = False
        return request("PUT", "/api/v1/store/items", body, key)

    return _over_http(port, ready, status=204)


def asking(port: int) -> Way:
    """A minimal request."""
    ready = request("GET", "/api/v1/ok")
    return _over_http(port, lambda: ready, status=200)


def _over_http(port: int, ready: Callable[[], bytes], *, status: int) -> Way:
    @asynccontextmanager
    async def way(clients: int) -> AsyncIterator[Work]:
        connections: list[Connection] = [await connect(port) for _ in range(clients)]

        async def ask(client: int) -> None:
            answer = await connections[client].ask(ready())
            assert answer.status == status, answer

        yield ask
        for connection in connections:
            connection.close()

    return way


def inserting(pool: asyncpg.Pool, *, indexed: bool) -> Way:
    """Each insert on a connection of the pool."""
    tenant = tenant_id_of("large")
    dice = random.Random(5)

    async def plain(_: int) -> None:
        await pool.execute(BARE_INSERT, tenant, str(new_id()), json.dumps({"text": sentence(dice, 20)}))

    async def with_vector(_: int) -> None:
        text = sentence(dice, 20)
        row = (tenant, str(new_id()), new_id(), json.dumps({"text": text}), text, vector(text))
        await pool.execute(BARE_VECTOR, *row)

    @asynccontextmanager
    async def way(_: int) -> AsyncIterator[Work]:
        yield with_vector if indexed else plain

    return way


async def _round(way: Way, target: Target, clients: int, seconds: float) -> Done:
    done = 0

    async def one(client: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(client)
            done += 1

    async with way(clients) as work:
        await asyncio.gather(*(work(client) for client in range(clients)))  # warm-up
        before = target.used()
        started_at = time.perf_counter()
        end = started_at + seconds
        await asyncio.gather(*(one(client) for client in range(clients)))
        wall = time.perf_counter() - started_at
        server, postgres, _ = (after - then for after, then in zip(target.used(), before, strict=True))
    return Done(done / wall, server / done, postgres / done)
