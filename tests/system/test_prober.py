"""The database probe: fresh results in every case, and its other probes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from app.features.system import database_probe as module
from app.features.system.database_probe import PROBE_INTERVAL, PROBE_TIMEOUT, DatabaseProbe
from app.features.system.readiness import Readiness
from app.infra.db.engine import Database
from tests.system.services import NOWHERE


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, requests=1, engine=1)
    yield database
    await database.aclose()


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await condition.wait()


async def test_a_probe_result_is_at_most_a_second_old() -> None:
    assert PROBE_INTERVAL + PROBE_TIMEOUT <= 1.0


async def test_the_database_is_probed_repeatedly(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_INTERVAL", 0.001)
    readiness = Readiness()
    readiness.ready()
    prober = DatabaseProbe(database, readiness)
    seen: set[datetime] = set()
    prober.start()
    async with asyncio.timeout(10):
        while len(seen) < 3:
            seen.add(prober.database_state.observed_at)
            await asyncio.sleep(0)
    await prober.aclose()
    assert readiness.not_ready_reason == ""


async def test_an_outage_is_logged_once_and_so_is_its_end(database: Database) -> None:
    away = Database(NOWHERE, requests=1, engine=1)
    prober = DatabaseProbe(away, Readiness())
    with capture_logs() as logged:
        await prober.refresh()
        await prober.refresh()
        prober._database = database
        await prober.refresh()
        await prober.refresh()
    await away.aclose()
    assert [entry["event"] for entry in logged] == ["database_lost", "database_found"]
    assert logged[0]["error"] == "Unavailable"


async def test_other_probes_are_called_independently(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OTHER_INTERVAL", 0.001)
    twice, hanging = asyncio.Event(), asyncio.Event()
    calls = 0

    async def other() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            twice.set()

    async def hangs() -> None:
        hanging.set()
        await asyncio.Event().wait()

    prober = DatabaseProbe(database, Readiness(), hangs, other)
    prober.start()
    await until(hanging)
    await until(twice)
    await prober.aclose()
