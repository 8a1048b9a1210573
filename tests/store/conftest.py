"""The store of the whole program in this process, asked by ``langgraph_sdk`` and over bare HTTP."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
import sqlalchemy as sa
from langgraph_sdk.client import LangGraphClient

from app.asgi import layers
from app.db.engine import Database
from app.documents.building import Building
from app.tools.port import LongTerm
from tests.database import execute
from tests.system.house import API, Service, serving


class Tenant(msgspec.Struct):
    """One tenant's client: ``sdk`` as LangGraph has it, ``http`` for what it would not send."""

    sdk: Any
    http: httpx.AsyncClient

    async def put(self, namespace: str, key: str, value: dict[str, Any], **more: Any) -> None:
        """Store an item; labels with dots between them."""
        await self.sdk.put_item(namespace.split("."), key, value, **more)

    async def get(self, namespace: str, key: str, **more: Any) -> Any:
        """An item, or None."""
        return await self.sdk.get_item(namespace.split("."), key, **more)

    async def items(self, prefix: str = "", **more: Any) -> list[Any]:
        """What a search finds."""
        found = await self.sdk.search_items(prefix.split(".") if prefix else [], **more)
        return list(found["items"])

    async def keys(self, prefix: str = "", **more: Any) -> list[str]:
        """The keys of what a search finds."""
        return [item["key"] for item in await self.items(prefix, **more)]


class Store(msgspec.Struct):
    """The program, its database, and its tenants."""

    service: Service
    url: str
    app: Any

    @contextlib.asynccontextmanager
    async def tenant(self, name: str) -> AsyncIterator[Tenant]:
        """A client with a key of the tenant ``name``."""
        headers = {"x-api-key": await self.service.key(name)}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://test{API}", headers=headers) as http:
            yield Tenant(LangGraphClient(http).store, http)

    async def do(self, *statements: str) -> None:
        """Change the database as its superuser."""
        await execute(self.url, *statements)

    async def count(self, table: str, condition: str = "true") -> int:
        """How many rows there are, of all tenants."""
        [count] = await self.counts(f"{table} where {condition}")
        return count

    async def counts(self, *tables: str) -> list[int]:
        """The same of several ``tables`` at one moment."""
        connection = await asyncpg.connect(self.url)
        try:
            parts = ", ".join(f"(select count(*) from {table})" for table in tables)
            return list(await connection.fetchrow(f"select {parts}"))
        finally:
            await connection.close()


def longterm_of(store: Store) -> LongTerm:
    """The long-term memory as agents of this program see it."""
    return Building(store.service.house.database, store.service.house.store).library


@contextlib.asynccontextmanager
async def store_on(url: str, **settings: Any) -> AsyncIterator[Store]:
    """The program with ``settings`` on the database at ``url``."""
    async with serving(url, **settings) as service:
        yield Store(service, url, layers(service.house))


@pytest.fixture
async def store(fresh_database_url: str) -> AsyncIterator[Store]:
    async with store_on(fresh_database_url) as store:
        yield store


@pytest.fixture
async def ours(store: Store) -> AsyncIterator[Tenant]:
    async with store.tenant("ours") as tenant:
        yield tenant


@pytest.fixture
async def theirs(store: Store) -> AsyncIterator[Tenant]:
    async with store.tenant("theirs") as tenant:
        yield tenant


def never(*_: Any) -> bool:
    """In place of ``searching.compares``: the index of vectors is walked, however few there are."""
    return False


@contextlib.asynccontextmanager
async def sent_by(database: Database) -> AsyncIterator[list[str]]:
    """The statements of the program over both pools, without what the driver asks on a new connection."""
    sent: list[str] = []

    def told(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    pool = database._requests.sync_engine
    sa.event.listen(pool, "before_cursor_execute", told)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute", "fetch", "fetchrow"):
            plain = getattr(asyncpg.Connection, name)

            async def asked(connection: Any, query: str, *args: Any, _plain: Any = plain, **more: Any) -> Any:
                sent.append(query)
                return await _plain(connection, query, *args, **more)

            patch.setattr(asyncpg.Connection, name, asked)
        yield sent
    sa.event.remove(pool, "before_cursor_execute", told)
