"""Searches of the store against a bare pgvector query that finds as much, in one run.

The bare query is what a program would write that knows its vectors: asyncpg, its tenant in the condition, iterative
scan, as many candidates in view as the store has (``EF_SEARCH``), a plan for each tenant.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
from pgvector.asyncpg import register_vector

from app.features.store.search.hybrid_search import SearchQuery, StoreSearch
from app.features.store.search.sql import EF_SEARCH, SEARCH_SETTINGS, SearchScope
from app.features.store.vectors import NeighbourQuery
from app.infra.db.engine import Database
from app.security.access.structs import tenant_id_of
from bench.store_data import PATH, SHARES, SPACE, TEN, WIDTH, milliseconds, sentence, vector

BARE = """
select item_id from store_vectors_384 where tenant_id = $1 and space = 16
order by embedding <=> $2 limit 10
"""
WALK = {
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.ef_search": str(EF_SEARCH),
    "hnsw.max_scan_tuples": "40000",
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
}
EXACT = {"enable_indexscan": "off", "plan_cache_mode": "force_custom_plan", "jit": "off"}
CLIENTS = (16, 32)
WARM = 10

Search = Callable[[UUID, str], Awaitable[Any]]
"""A tenant's search for a text."""


class Ways:
    """Search variants: ``bare``; the store in this process by ``vectors`` alone, and ``fused`` with words."""

    def __init__(self, url: str, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._database = Database(url, requests=10, engine=1)
        self._searching = StoreSearch()
        self.aclose = self._database.aclose

    async def bare(self, tenant: UUID, text: str) -> set[UUID]:
        return {row["item_id"] for row in await self._pool.fetch(BARE, tenant, vector(text))}

    async def vectors(self, tenant: UUID, text: str) -> set[UUID]:
        return await self._asked(tenant, "", text)

    async def fused(self, tenant: UUID, text: str) -> set[UUID]:
        return await self._asked(tenant, text, text)

    async def _asked(self, tenant: UUID, words: str, text: str) -> set[UUID]:
        question = SearchQuery(
            scope=SearchScope(tenant, PATH),
            text=words,
            near=[NeighbourQuery(WIDTH, SPACE, vector(text))],
            conditions=[],
            limit=TEN,
            offset=0,
        )
        async with self._database.tuned(tenant, SEARCH_SETTINGS) as connection:
            return {one.row["item_id"] for one in await self._searching.search(connection, question)}


async def one_by_one(url: str, sessions: dict[str, aiohttp.ClientSession], questions: int) -> dict[str, Any]:
    """Each question to each way in turn: time, and the part of the ten nearest that it finds."""
    found: dict[str, Any] = {}
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1, init=register_vector, server_settings=WALK) as pool,
        asyncpg.create_pool(url, min_size=1, max_size=1, init=register_vector, server_settings=EXACT) as exact,
    ):
        ways = Ways(url, pool)
        for name in SHARES:
            tenant = tenant_id_of(name)
            asked: dict[str, Search] = {"bare": ways.bare, "vectors": ways.vectors, "fused": ways.fused}
            asked["fused, over HTTP"] = over_http(sessions[name])
            times: dict[str, list[float]] = {way: [] for way in asked}
            hits = dict.fromkeys(asked, 0)
            dice = random.Random(3)
            texts = [sentence(dice, 6) for _ in range(questions + WARM)]
            # first, because an exact scan evicts PostgreSQL's buffers
            truth = [{row["item_id"] for row in await exact.fetch(BARE, tenant, vector(text))} for text in texts]
            for number, (text, true) in enumerate(zip(texts, truth, strict=True)):
                order = list(asked)
                for way in order[number % len(order) :] + order[: number % len(order)]:
                    started_at = time.perf_counter()
                    items = await asked[way](tenant, text)
                    if number >= WARM:
                        times[way].append(time.perf_counter() - started_at)
                        hits[way] += len(true & items)
            bare = milliseconds(times["bare"])
            for way, spent in times.items():
                figures: dict[str, Any] = {"p50_ms": milliseconds(spent)}
                figures["times_bare"] = round(figures["p50_ms"] / bare, 2)
                if way in {"bare", "vectors"}:
                    figures["recall"] = round(hits[way] / (questions * TEN), 3)
                found[f"{name}, 1 client, {way}"] = figures
        await ways.aclose()
    return found


async def many_at_once(url: str, sessions: dict[str, aiohttp.ClientSession], seconds: float) -> dict[str, Any]:
    """How many searches a second, by so many clients of the large tenant."""
    found: dict[str, Any] = {}
    tenant = tenant_id_of("large")
    async with asyncpg.create_pool(url, min_size=10, max_size=10, init=register_vector, server_settings=WALK) as pool:
        ways = Ways(url, pool)
        for clients in CLIENTS:
            asked: dict[str, Search] = {"bare": ways.bare, "vectors": ways.vectors, "fused": ways.fused}
            asked["fused, over HTTP"] = over_http(sessions["large"])
            bare = 0.0
            for way, search in asked.items():
                await _rate(search, tenant, clients, 0.5)
                rate, times = await _rate(search, tenant, clients, seconds)
                bare = bare or rate
                found[f"large, {clients} clients, {way}"] = {
                    "per_s": rate,
                    "p50_ms": milliseconds(times),
                    "of_bare": round(rate / bare, 2),
                }
        await ways.aclose()
    return found


async def _rate(search: Search, tenant: UUID, clients: int, seconds: float) -> tuple[float, list[float]]:
    end = time.perf_counter() + seconds
    times: list[float] = []

    async def one(client: int) -> None:
        dice = random.Random(client)
        while (started_at := time.perf_counter()) < end:
            await search(tenant, sentence(dice, 6))
            times.append(time.perf_counter() - started_at)

    await asyncio.gather(*(one(client) for client in range(clients)))
    return round(len(times) / seconds, 1), times


def over_http(session: aiohttp.ClientSession) -> Search:
    async def search(_: UUID, text: str) -> set[UUID]:
        body = {"namespace_prefix": ["bench"], "query": text, "limit": TEN}
        async with session.post("/api/v1/store/items/search", json=body) as answer:
            assert answer.status == 200, await answer.text()
            assert len((await answer.json())["items"]) == TEN
        return set()

    return search
