"""Import of threads from LangGraph's tables, without the process that runs graphs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from app.agents.langgraph.worker import GraphWorker
from app.cli.langgraph_import.source import opened
from app.cli.langgraph_import.threads import ThreadImporter
from app.infra.db.engine import Database
from app.security.access.structs import DEFAULT_TENANT
from tests.database import execute
from tests.graphs.langgraph_tables import fill

SECONDS = 0.1


class SlowGraphs:
    """Stands for the process that runs graphs, with checkpoints that take it longer than a transaction may idle."""

    graphs = frozenset({"chat"})

    async def request(self, _op: str, *, stored: Any, values: Any, **_of: str) -> dict[str, Any]:
        if stored is not None:
            await asyncio.sleep(2 * SECONDS)
        return {"changes": {"text": ["v", b'"one"']}, "next": [], "differences": []}


@pytest.fixture
async def database(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr("app.infra.db.pool.IDLE_IN_TRANSACTION", f"{SECONDS}s")
    database = Database(fresh_database_url)
    yield database
    await database.aclose()


async def test_checkpoints_may_take_longer_than_a_transaction_may_be_idle(
    database: Database, fresh_database_url: str
) -> None:
    await execute(fresh_database_url, "create schema theirs")
    saver, tables = InMemorySaver(), f"{fresh_database_url}&search_path=theirs"
    saver.put({"configurable": {"thread_id": "one", "checkpoint_ns": ""}}, empty_checkpoint(), {"step": -1}, {})
    await fill(tables, saver, {})
    async with opened(tables) as source:
        importer = ThreadImporter(database, cast("GraphWorker", SlowGraphs()), source, DEFAULT_TENANT, "chat")
        assert await importer.bring("one")
    assert importer.checkpoints == 1
