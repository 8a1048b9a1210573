"""The store of a whole program in this process, called with ``langgraph_sdk`` and plain HTTP."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from langgraph_sdk.client import LangGraphClient

from app.agents.tools.port import LongTerm
from app.server.composition.documents import DocumentServices
from tests.database import execute
from tests.system.program import Program


class Tenant(msgspec.Struct):
    """A tenant's client: ``sdk`` is LangGraph's, ``http`` sends what that would not."""

    sdk: Any
    http: httpx.AsyncClient

    async def put(self, namespace: str, key: str, value: dict[str, Any], **more: Any) -> None:
        """Store an item; ``namespace`` has dots between its labels."""
        await self.sdk.put_item(namespace.split("."), key, value, **more)

    async def get(self, namespace: str, key: str, **more: Any) -> Any:
        """Return an item, or None."""
        return await self.sdk.get_item(namespace.split("."), key, **more)

    async def items(self, prefix: str = "", **more: Any) -> list[Any]:
        """Return the items that a search finds."""
        found = await self.sdk.search_items(prefix.split(".") if prefix else [], **more)
        return list(found["items"])

    async def keys(self, prefix: str = "", **more: Any) -> list[str]:
        """Return the keys of the items that a search finds."""
        return [item["key"] for item in await self.items(prefix, **more)]


class Store(Program):
    """The program and its store."""

    @contextlib.asynccontextmanager
    async def tenant(self, name: str) -> AsyncIterator[Tenant]:
        """A client with a key of the tenant ``name``."""
        async with self.with_key(name) as http:
            yield Tenant(LangGraphClient(http).store, http)

    async def do(self, *statements: str) -> None:
        """Execute statements as the superuser of the database."""
        await execute(self.url, *statements)


store_on = Store.on


def longterm_of(store: Store) -> LongTerm:
    """Return the long-term memory of this program's agents."""
    return DocumentServices(store.service.services.persistence.database, store.service.services.features.store).library


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


def always_hnsw(*_: Any) -> bool:
    """Replacement of ``hybrid_search.prefers_exact_scan`` that forces the HNSW scan."""
    return False
