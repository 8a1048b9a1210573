"""Fixtures of API keys: each test has a tenant of its own."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from tests.access.clock import Clock
from tests.system.services import PEPPER, Service, serving


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenant() -> str:
    return f"tenant {uuid4()}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, requests=4, engine=1)
    yield database
    await database.aclose()


@pytest.fixture
def access(database: Database, clock: Clock) -> AccessService:
    return AccessService(database, Secret(PEPPER), clock)


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    """The whole application, with authentication on."""
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        yield service
