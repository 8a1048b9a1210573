"""Fixtures of crons: a database, a process and a clock that tests set."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from app.infra.db.engine import Database
from tests.crons.replicas import Clock, Replica, replicas_on
from tests.runs.engine import add_assistants


@pytest.fixture
def clock() -> Clock:
    """Monday noon, until a test sets another time."""
    return Clock(datetime(2026, 3, 2, 12, 0, tzinfo=UTC))


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    """The application's pools on a database of this test."""
    database = Database(fresh_database_url, requests=8, engine=30)
    await add_assistants(database, "echo")
    yield database
    await database.aclose()


@pytest.fixture
async def replica(database: Database, clock: Clock) -> AsyncIterator[Replica]:
    """One process that serves crons."""
    async with replicas_on(database, clock, 1) as (replica,):
        yield replica
