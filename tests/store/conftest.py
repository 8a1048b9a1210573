"""The store of the whole program in this process, asked by ``langgraph_sdk`` and over bare HTTP."""

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


class Store(Program):
    """The program and its store."""

    @contextlib.asynccontextmanager
    async def tenant(self, name: str) -> AsyncIterator[Tenant]:
        """A client with a key of the tenant ``name``."""
        async with self.with_key(name) as http:
            yield Tenant(LangGraphClient(http).store, http)

    async def do(self, *statements: str) -> None:
        """Change the database as its superuser."""
        await execute(self.url, *statements)


store_on = Store.on


def longterm_of(store: Store) -> LongTerm:
    """The long-term memory as agents of this program see it."""
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
    """In place of ``hybrid_search.prefers_exact_scan``: the index of vectors is walked, however few there are."""
    return False
