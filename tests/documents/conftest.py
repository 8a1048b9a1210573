"""Documents of a whole program in this process, called over HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.system.program import Program


class Tenant(msgspec.Struct):
    """A client with a key of one tenant."""

    http: httpx.AsyncClient

    async def post(self, content: bytes, kind: str = "text/plain", *, key: str = "", **fields: str) -> httpx.Response:
        """Upload ``content`` as a body."""
        headers = {"content-type": kind, **({"idempotency-key": key} if key else {})}
        return await self.http.post("/documents", content=content, params=fields, headers=headers)

    async def upload(self, content: bytes, kind: str = "text/plain", **fields: str) -> dict[str, Any]:
        """Upload ``content`` and wait until it is ingested."""
        answer = await self.post(content, kind, **fields)
        assert answer.status_code in {200, 202}, answer.text
        return await self.ended(answer.json())

    async def ended(self, document: dict[str, Any]) -> dict[str, Any]:
        """Wait until the ingestion of ``document`` has ended, and return it."""
        async with asyncio.timeout(40):
            while True:
                found = await self.get(document["document_id"])
                if found["status"] in {"ready", "failed"}:
                    return found
                await asyncio.sleep(0.02)

    async def get(self, document_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/documents/{document_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def chunks(self, document_id: str) -> list[dict[str, Any]]:
        """Return all chunks, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.http.get(
                f"/documents/{document_id}/chunks", params={"limit": 500, "offset": len(found)}
            )
            found += answer.json()
            if "x-pagination-next" not in answer.headers:
                return found

    async def text(self, document_id: str) -> str:
        answer = await self.http.get(f"/documents/{document_id}/text")
        assert answer.status_code == 200, answer.text
        return answer.content.decode()

    async def search(self, query: str, **more: Any) -> list[dict[str, Any]]:
        answer = await self.http.post("/documents/search", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["passages"])


class Library(Program):
    """The program and its documents."""

    @contextlib.asynccontextmanager
    async def tenant(self, name: str) -> AsyncIterator[Tenant]:
        """A client with a key of the tenant ``name``."""
        async with self.with_key(name) as http:
            while (await http.get("/documents")).status_code == 503:
                pass  # on a busy machine the first check of a key, on a new connection, takes too long
            yield Tenant(http)


library_on = Library.on


@pytest.fixture
async def library(fresh_database_url: str) -> AsyncIterator[Library]:
    async with library_on(fresh_database_url) as library:
        yield library


@pytest.fixture
async def ours(library: Library) -> AsyncIterator[Tenant]:
    async with library.tenant("ours") as tenant:
        yield tenant


@pytest.fixture
async def theirs(library: Library) -> AsyncIterator[Tenant]:
    async with library.tenant("theirs") as tenant:
        yield tenant
