"""The whole program in this process: the House on a real database, asked as the server would ask it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.features.system import database_probe
from app.infra.settings.environment import load
from app.infra.telemetry.instruments import OVERFLOW
from app.infra.telemetry.labels import EnumLabel
from app.security.access.structs import SCOPES
from app.server.asgi import layers
from app.server.composition.services import AppServices, build
from app.server.lifespan import Lifespan

PEPPER = "0123456789abcdef" * 2
API = "/api/v1"
NOWHERE = "postgresql://nobody@/nothing?host=/nowhere"
"""A database that cannot be reached."""
PATIENCE = 10.0
"""A machine that is busy with other tests is no lost database."""


class Service(msgspec.Struct):
    """The services and a client of its whole stack."""

    services: AppServices
    client: httpx.AsyncClient

    async def get(self, path: str, key: str = "") -> httpx.Response:
        """The answer to GET ``path`` below the base path."""
        return await self.client.get(API + path, headers={"x-api-key": key} if key else {})

    async def key(self, tenant: str, *scopes: str) -> str:
        """A new key of ``tenant``, with all scopes unless some are named."""
        _, key = await self.services.auth.keys.create_key("test", tenant=tenant, scopes=frozenset(scopes) or SCOPES)
        return key.reveal()


def built(url: str, **settings: str) -> AppServices:
    """The services as ``serve`` builds it, not yet open."""
    chosen = {"DATABASE_URL": url, "AGENT_KEY_PEPPER": PEPPER, "AGENT_DRAIN_SECONDS": "0", **settings}
    return build(load(chosen, dotenv=Path(os.devnull)))


def client_of(services: AppServices) -> httpx.AsyncClient:
    """A client that talks to the layers of ``services`` without a network."""
    app: Any = layers(services)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@asynccontextmanager
async def serving(url: str, *, deadline: float = PATIENCE, **settings: str) -> AsyncIterator[Service]:
    """Open services on the database at ``url``, which counts as lost when it says nothing for ``deadline`` seconds."""
    services = built(url, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_probe, "DEADLINE", deadline)
        async with opened(services) as service:
            yield service


@asynccontextmanager
async def opened(services: AppServices) -> AsyncIterator[Service]:
    """``services`` open, and a client of it."""
    lifespan = Lifespan(services)
    await lifespan.open()
    await services.health.probe.refresh()
    try:
        async with client_of(services) as client:
            yield Service(services, client)
    finally:
        await lifespan.close()
        assert undeclared(services) == []


def undeclared(services: AppServices) -> list[str]:
    """What was counted under values that the labels do not declare, on which rules would be silent."""
    return [
        f"{part.name}: {label} {value!r}"
        for part in services.telemetry.meters.instruments()
        for values, _ in part.cells()
        for label, value in zip(part.labels, values, strict=True)
        if isinstance(label, EnumLabel) and value not in {*label.values, OVERFLOW}
    ]
