"""Metrics of connection pools."""

import asyncio

import pytest
import sqlalchemy as sa

from app.base.errors import Unavailable
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters
from tests.runs.engine import TENANT


async def test_pools_report_waiters_wait_times_and_connections_in_use(database_url: str) -> None:
    meters = Meters()
    database = Database(database_url, requests=1, engine=1)
    database.measure(meters)
    try:
        async with database.engine_connection(), database.reading(TENANT) as reader:
            assert await reader.scalar(sa.text("select 1")) == 1
            second = asyncio.ensure_future(_read(database))
            while meters.pool_waiting.series.get(("requests",)) != 1:
                await asyncio.sleep(0)
                database.sample()
            assert meters.pool_connections.series[("requests", "used")] == 1
        await second
        database.sample()
        assert meters.pool_connections.series == {
            ("requests", "used"): 0,
            ("requests", "idle"): 1,
            ("engine", "used"): 0,
            ("engine", "idle"): 1,
            ("tenants", "used"): 0,
            ("tenants", "idle"): 0,
        }
        assert meters.pool_most.series == {("requests",): 1, ("engine",): 1, ("tenants",): 5}
        assert meters.pool_waiting.series[("requests",)] == 0
        assert sum(meters.pool_wait.series[("requests",)].counts) == 2
        assert sum(meters.pool_use.series[("requests",)].counts) == 2
        assert sum(meters.pool_use.series[("engine",)].counts) == 1
    finally:
        await database.aclose()


async def _read(database: Database) -> None:
    async with database.reading(TENANT) as reader:
        await reader.scalar(sa.text("select 1"))


async def test_a_wait_that_times_out_is_counted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meters = Meters()
    database = Database(database_url, requests=1, engine=1)
    database.measure(meters)
    monkeypatch.setattr(database._requests.sync_engine.pool, "_timeout", 0.05)
    try:
        async with database.reading(TENANT):
            with pytest.raises(Unavailable):
                await _read(database)
        assert meters.pool_timeouts.series == {("requests",): 1, ("engine",): 0, ("tenants",): 0}
    finally:
        await database.aclose()
