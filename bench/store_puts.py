"""Puts of the store over HTTP against bare inserts of the same rows, in one run."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import asyncpg

from app.access.structs import tenant_id_of
from app.base.ids import new_id
from bench.processes import Server, cpu_seconds
from bench.store_data import sentence, vector

BARE_INSERT = "insert into bare_items (tenant_id, namespace, key, value) values ($1, 'bench.', $2, $3::jsonb)"
BARE_VECTOR = """
with item as (
  insert into store_items (tenant_id, namespace, key, item_id, value, words, version)
  values ($1, 'bare.', $2, $3, $4::jsonb, to_tsvector('simple', $5), 1)
)
insert into store_vectors_384 (tenant_id, item_id, space, part, namespace, embedding)
values ($1, $3, 16, 0, 'bare.', $6::text::halfvec(384))
"""
ROUNDS = 2
"""Of each kind: bare and over HTTP take turns, since a disk has moods."""

Work = Callable[[int], Awaitable[None]]


async def puts(url: str, running: Server, session: aiohttp.ClientSession, seconds: float) -> dict[str, Any]:
    """Puts a second, and what part of the bare inserts they are."""
    found: dict[str, Any] = {}
    async with asyncpg.create_pool(url, min_size=32, max_size=32, server_settings={"jit": "off"}) as pool:
        for indexed in (False, True):
            for clients in (1, 32):
                bare, http, used = 0.0, 0.0, 0.0
                for _ in range(ROUNDS):
                    bare += await _rate(inserting(pool, indexed=indexed), clients, seconds / ROUNDS)
                    before = cpu_seconds(running.pid)
                    http += await _rate(putting(session, indexed=indexed), clients, seconds / ROUNDS)
                    used += cpu_seconds(running.pid) - before
                found[f"{'indexed' if indexed else 'not indexed'}, {clients} clients"] = {
                    "http_per_s": round(http / ROUNDS),
                    "bare_per_s": round(bare / ROUNDS),
                    "of_bare": round(http / bare, 2),
                    "server_cpu_ms": round(used / (http / ROUNDS * seconds) * 1000, 2),
                }
    return found


def putting(session: aiohttp.ClientSession, *, indexed: bool) -> Work:
    dice = random.Random(4)

    async def put(_: int) -> None:
        body: dict[str, Any] = {"namespace": ["put"], "key": str(new_id()), "value": {"text": sentence(dice, 20)}}
        if not indexed:
            body["index"] = False
        async with session.put("/api/v1/store/items", json=body) as answer:
            assert answer.status == 204, await answer.text()

    return put


def inserting(pool: asyncpg.Pool, *, indexed: bool) -> Work:
    tenant = tenant_id_of("large")
    dice = random.Random(5)

    async def plain(_: int) -> None:
        await pool.execute(BARE_INSERT, tenant, str(new_id()), json.dumps({"text": sentence(dice, 20)}))

    async def with_vector(_: int) -> None:
        text = sentence(dice, 20)
        row = (tenant, str(new_id()), new_id(), json.dumps({"text": text}), text, vector(text))
        await pool.execute(BARE_VECTOR, *row)

    return with_vector if indexed else plain


async def _rate(work: Work, clients: int, seconds: float) -> float:
    end = time.perf_counter() + seconds
    done = 0

    async def one(client: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(client)
            done += 1

    await asyncio.gather(*(one(client) for client in range(clients)))
    return done / seconds
