"""The whole application in this process, with tenants, and access to its database."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

import asyncpg
import httpx
import msgspec

from tests.system.services import API, Service, serving


class Program(msgspec.Struct):
    """An application and the URL of its database."""

    service: Service
    url: str
    app: Any

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, url: str, **settings: Any) -> AsyncIterator[Self]:
        """Open an application with ``settings`` on the database ``url``."""
        async with serving(url, **settings) as service:
            yield cls(service, url, service.app)

    @contextlib.asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        """Return a client of the API that sends ``headers``."""
        transport = httpx.ASGITransport(self.app)
        base = f"http://localhost{API}"
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers, timeout=60) as http:
            yield http

    @contextlib.asynccontextmanager
    async def with_key(self, tenant: str) -> AsyncIterator[httpx.AsyncClient]:
        """Return a client with a key of ``tenant``."""
        async with self.client(**{"x-api-key": await self.service.key(tenant)}) as http:
            yield http

    async def value(self, statement: str, *parameters: Any) -> Any:
        """Query one value as superuser."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement, *parameters)
        finally:
            await connection.close()

    async def count(self, table: str, condition: str = "true") -> int:
        """Count rows of all tenants."""
        return int(await self.value(f"select count(*) from {table} where {condition}"))

    async def counts(self, *tables: str) -> list[int]:
        """Count rows of all tenants in each of ``tables``, in one snapshot."""
        parts = ", ".join(f"(select count(*) from {table})" for table in tables)
        return list(await self.value(f"select array[{parts}]"))
