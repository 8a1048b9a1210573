"""Connections whose server died silently are not handed out again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.base.errors import Unavailable
from app.infra.db.engine import Database
from app.security.access.structs import DEFAULT_TENANT
from app.security.idempotency import queries
from app.security.idempotency.structs import IdempotencyKey
from tests.faults.proxy import Proxy, Trouble

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def database(proxy: Proxy) -> AsyncIterator[Database]:
    """Pools of one connection each, through the proxy."""
    database = Database(proxy.url, requests=1, engine=1)
    yield database
    database.abort()
    await database.aclose()


async def ask(database: Database) -> int:
    async with database.engine_connection() as connection:
        return int(await connection.fetchval("select 1"))


async def test_a_statement_that_times_out_closes_its_connection(database: Database, proxy: Proxy) -> None:
    await ask(database)
    async with proxy.having(Trouble.HALF_OPEN):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(database)
        assert await asyncio.wait_for(ask(database), 20) == 1


async def test_a_rollback_without_a_response_closes_its_connection(
    database: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infra.db.engine.ROLLBACK_SECONDS", 0.5)

    async def search() -> int:
        async with database.tuned(DEFAULT_TENANT, "") as connection:
            return int(await connection.fetchval("select 1"))

    await search()
    async with proxy.having(Trouble.HALF_OPEN):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await search()
        assert await asyncio.wait_for(search(), 20) == 1


async def test_suspect_connections_are_replaced_once(database: Database) -> None:
    async def backend() -> int:
        async with database.engine_connection() as connection:
            return int(await connection.fetchval("select pg_backend_pid()"))

    first = await backend()
    assert await backend() == first
    database.suspect_connections()
    second = await backend()
    assert second != first
    assert await backend() == second


async def test_an_idempotency_key_is_released_soon_after_its_client_died(
    proxy: Proxy, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing closes the connection: the lost process does not know, and neither does PostgreSQL."""
    monkeypatch.setattr("app.infra.db.pool.IDLE_IN_TRANSACTION", "500ms")
    key, taken, lost = IdempotencyKey("POST /threads/1/runs", "k", b"f"), asyncio.Event(), asyncio.Event()
    lame, well = Database(proxy.url), Database(fresh_database_url)

    async def accept() -> None:
        async with lame.writing(DEFAULT_TENANT) as session:
            await queries.take(session, DEFAULT_TENANT, key)
            taken.set()
            await lost.wait()
            await (await session.driver()).execute("select 1")

    accepting = asyncio.ensure_future(accept())
    try:
        await taken.wait()
        async with proxy.having(Trouble.HALF_OPEN):
            lost.set()
            async with asyncio.timeout(20), well.writing(DEFAULT_TENANT) as session:
                assert await queries.take(session, DEFAULT_TENANT, key) is None
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        for one in (lame, well):
            one.abort()
            await one.aclose()


async def test_a_transaction_that_cannot_begin_makes_all_connections_suspect(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request has to wait for that, and not one for each connection of the pool."""
    monkeypatch.setattr("app.infra.db.engine.FIRST_SECONDS", 0.5)
    database, size = Database(proxy.url, requests=5), 4  # one of five is reserved for other tenants

    async def ask(together: asyncio.Barrier | None = None) -> None:
        async with database.reading(DEFAULT_TENANT):
            if together is not None:
                await together.wait()

    try:
        together = asyncio.Barrier(size)
        await asyncio.gather(*(ask(together) for _ in range(size)))
        async with proxy.having(Trouble.HALF_OPEN):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(ask(), 20)
            for _ in range(size):
                await asyncio.wait_for(ask(), 20)
    finally:
        database.abort()
        await database.aclose()
