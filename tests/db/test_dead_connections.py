"""Connections whose server is gone without a word: none of them is handed out again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.access.structs import DEFAULT_TENANT
from app.db.engine import Database
from tests.faults.proxy import Proxy, Trouble

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def proxy(fresh_database_url: str) -> AsyncIterator[Proxy]:
    """A way to the test's database that can go wrong."""
    async with Proxy(fresh_database_url) as proxy:
        yield proxy


@pytest.fixture
async def database(proxy: Proxy) -> AsyncIterator[Database]:
    """Pools of one connection each, by that way."""
    database = Database(proxy.url, requests=1, engine=1)
    yield database
    database.abort()
    await database.aclose()


async def ask(database: Database) -> int:
    async with database.engine_connection() as connection:
        return int(await connection.fetchval("select 1"))


async def test_a_statement_that_was_given_up_takes_its_connection_along(database: Database, proxy: Proxy) -> None:
    await ask(database)
    async with proxy.having(Trouble.HALF_OPEN):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(database)
        assert await asyncio.wait_for(ask(database), 20) == 1


async def test_a_rollback_that_gets_no_answer_takes_its_connection_along(
    database: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.ROLLBACK_SECONDS", 0.5)

    async def search() -> int:
        async with database.tuned(DEFAULT_TENANT, "") as connection:
            return int(await connection.fetchval("select 1"))

    await search()
    async with proxy.having(Trouble.HALF_OPEN):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await search()
        assert await asyncio.wait_for(search(), 20) == 1


async def test_connections_in_doubt_are_replaced_and_their_successors_kept(database: Database) -> None:
    async def backend() -> int:
        async with database.engine_connection() as connection:
            return int(await connection.fetchval("select pg_backend_pid()"))

    first = await backend()
    assert await backend() == first
    database.doubt()
    second = await backend()
    assert second != first
    assert await backend() == second
