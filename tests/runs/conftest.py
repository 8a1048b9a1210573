"""An engine with the agent ``echo`` on the test's database."""

from collections.abc import AsyncIterator

import pytest

from app.infra.db.engine import Database
from tests.runs.engine import Engine, SteeredAgent, add_assistants, echo, engine_on


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    """The application's own pools on a database of this test alone."""
    database = Database(fresh_database_url, requests=4, engine=30)
    await add_assistants(database, "echo", "steered")
    yield database
    await database.aclose()


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Engine]:
    """A started engine that knows ``echo``."""
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        yield engine
