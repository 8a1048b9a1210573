"""Statements that an operator cancels (``pg_cancel_backend``) slow runs down; no run fails, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.base.errors import Unavailable
from app.engine.entries import ClaimedRun
from app.infra.db.engine import Database
from tests.outages import Operator
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, fetch

CANCELS = 12
CLIENTS = 8
EVERY = 7
"""One of so many statements of the engine is cancelled."""


@pytest.fixture
async def operator(database_url: str) -> AsyncIterator[Operator]:
    operator = Operator(await asyncpg.connect(database_url))
    yield operator
    await operator.connection.close()


async def begin(engine: Engine) -> ClaimedRun:
    """Start a run as a client would that tries again after a 503."""
    while True:
        try:
            return await engine.begin("x", agent="steered")
        except Unavailable:
            await asyncio.sleep(0.01)


async def test_runs_go_on_while_statements_are_cancelled(
    database: Database, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements, begun = 0, 0

    def often_cancelled(name: str) -> Any:
        given = getattr(asyncpg.Connection, name)

        async def ask(connection: asyncpg.Connection, query: str, *parameters: Any, **options: Any) -> Any:
            nonlocal statements
            statements += 1
            if statements % EVERY == 0 and connection is not operator.connection:
                await operator.cancel(connection)
            return await given(connection, query, *parameters, **options)

        return ask

    async def work(engine: Engine) -> None:
        nonlocal begun
        while operator.cancelled < CANCELS:
            begun += 1
            run = await begin(engine)
            while True:
                try:
                    await engine.streams.ended(TENANT, run.thread_id, run.run_id)
                    break
                except Unavailable:
                    continue

    async with engine_on(database, SteeredAgent("steered", echo), sweeping=True) as engine:
        with monkeypatch.context() as patch:
            for name in ("fetch", "fetchrow", "fetchval"):
                patch.setattr(asyncpg.Connection, name, often_cancelled(name))
            async with asyncio.timeout(25), asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(work(engine))
    rows = await fetch(database, "select status, attempts, count(*) as runs from runs group by 1, 2")
    assert rows == [{"status": "success", "attempts": 1, "runs": begun}]
