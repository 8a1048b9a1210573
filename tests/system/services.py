"""The whole application in this process, on a real database."""

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
NOWHERE = "postgresql://unknown@/nothing?host=/nowhere"
"""A database that cannot be reached."""
PROBE_TIMEOUT = 10.0
"""Long, because a machine that is busy with other tests must not count as a lost database."""


class Service(msgspec.Struct):
    """The services of an application, all its layers, and a client of them."""

    services: AppServices
    app: Any
    client: httpx.AsyncClient

    async def get(self, path: str, key: str = "") -> httpx.Response:
        """GET ``path`` below the base path."""
        return await self.client.get(API + path, headers={"x-api-key": key} if key else {})

    async def key(self, tenant: str, *scopes: str) -> str:
        """Create a key of ``tenant``; it has all scopes by default."""
        _, key = await self.services.auth.keys.create_key("test", tenant=tenant, scopes=frozenset(scopes) or SCOPES)
        return key.reveal()


def built(url: str, **settings: str) -> AppServices:
    """Build the services as ``serve`` does, without opening them."""
    chosen = {"DATABASE_URL": url, "AGENT_KEY_PEPPER": PEPPER, "AGENT_DRAIN_SECONDS": "0", **settings}
    return build(load(chosen, dotenv=Path(os.devnull)))


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client of ``app``, without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@asynccontextmanager
async def serving(url: str, *, probe_timeout: float = PROBE_TIMEOUT, **settings: str) -> AsyncIterator[Service]:
    """Open services on ``url``; a probe of the database times out after ``probe_timeout`` seconds."""
    services = built(url, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_probe, "PROBE_TIMEOUT", probe_timeout)
        async with opened(services) as service:
            yield service


@asynccontextmanager
async def opened(services: AppServices) -> AsyncIterator[Service]:
    """Open ``services`` and a client of them."""
    lifespan = Lifespan(services)
    await lifespan.open()
    await services.health.probe.refresh()
    try:
        app = layers(services)
        async with client_of(app) as client:
            yield Service(services, app, client)
    finally:
        await lifespan.close()
        assert undeclared(services) == []


def undeclared(services: AppServices) -> list[str]:
    """Return counts with undeclared label values, which alert rules would miss."""
    return [
        f"{part.name}: {label} {value!r}"
        for part in services.telemetry.meters.instruments()
        for values in part.series
        for label, value in zip(part.labels, values, strict=True)
        if isinstance(label, EnumLabel) and value not in {*label.values, OVERFLOW}
    ]
