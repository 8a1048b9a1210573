"""The database server disappears silently: runs continue over new connections."""

import asyncio
import contextlib

import pytest

from app.agents.port import RunContext, RunOutcome
from app.infra.db.engine import Database
from tests.faults.proxy import Proxy, Trouble
from tests.runs.engine import Engine, SteeredAgent, add_assistants

LEASE_SECONDS = 12.0
IDLE = 12
"""Idle connections, all of them dead: more than heartbeats fit into a lease."""


@pytest.mark.timeout(120)
async def test_heartbeats_outlive_a_pool_of_dead_connections(fresh_database_url: str) -> None:
    async def work(_: RunContext) -> RunOutcome:
        await asyncio.Event().wait()
        return RunOutcome()

    async with Proxy(fresh_database_url) as proxy:
        database = Database(proxy.url, requests=4, engine=30)
        await add_assistants(database, "steered")
        engine = Engine(database, SteeredAgent("steered", work), lease=LEASE_SECONDS)
        await engine.start(sweeping=True)
        run = await engine.begin("x", agent="steered")
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        async with contextlib.AsyncExitStack() as held:
            for _ in range(IDLE):
                await held.enter_async_context(database.engine_connection())
        async with proxy.having(Trouble.HALF_OPEN):
            before = live.lease.until
            while live.lease.until == before:
                assert not live.done.done(), "the lease was lost"
                await asyncio.wait({live.done}, timeout=0.1)
            assert engine.supervisor.live(run.run_id) is live
        database.abort()
        await engine.stop()
        await database.aclose()
