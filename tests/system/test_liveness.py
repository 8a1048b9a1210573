"""Liveness: a worker with a stuck essential task reports it, unless the database is unavailable."""

import asyncio
import gc
import time
from pathlib import Path

import pytest

from app.base import tasks as module
from app.base.tasks import Tasks
from app.infra.db import group_commit
from app.infra.db.engine import DISK_FULL
from tests.database import execute
from tests.journeys.conftest import Served
from tests.outages import children_of
from tests.system.services import Service, serving
from tests.waiting import eventually

RUN = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "Hello"}]}}
WITHOUT = "revoke all on runs from agent_engine"
WITH = "grant select, insert, update, delete on runs to agent_engine"

ESSENTIAL = {
    "accept.slot-0",
    "accept.slot-1",
    "budgets.flush",
    "claimer.claim",
    "claimer.reap",
    "crons.scheduler",
    "feeds.missed",
    "feeds.poll",
    "frame-publisher.send",
    "journal.canary",
    "journal.slot-0",
    "journal.slot-1",
    "journal.check",
    "leases.fence",
    "leases.renew",
    "postgres-transport.fetch",
    "prober.database",
    "signals.connection",
    "takeover.slot-0",
    "webhooks.dispatcher",
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count failures at once."""
    monkeypatch.setattr(module, "FAILING_SECONDS", 1.0)


async def test_every_long_running_task_is_supervised_and_the_essential_ones_are_listed(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        supervision = service.services.health.watchdog
        assert set(supervision.names(essential=True)) >= ESSENTIAL
        known = {*supervision.names(essential=True), *supervision.names(essential=False)}
        owners = [one for one in gc.get_objects() if isinstance(one, Tasks) and one is not supervision._tasks]
        kept = {kept.name for owner in owners for kept in owner._supervised if owner._supervision is supervision}
        assert kept == known
        outside = {kept.name for owner in owners for kept in owner._supervised if owner._supervision is None}
        assert outside == set(), "created after start-up, so not supervised"


@pytest.mark.usefixtures("at_once")
async def test_a_process_that_is_stuck_while_the_database_works_is_not_live(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        given_up: list[str] = []
        service.services.health.watchdog.on_give_up = given_up.append
        assert (await service.get("/health/live")).status_code == 200
        await execute(fresh_database_url, WITHOUT)

        async def is_dead() -> bool:
            return (await service.get("/health/live")).status_code == 503

        await eventually(is_dead)
        assert len(given_up) == 1
        assert "times in a row" in given_up[0]
        assert (await service.get("/health/ready")).status_code == 503
        assert (await service.get("/health")).json()["status"] == "unhealthy"
        await execute(fresh_database_url, WITH)


@pytest.mark.timeout(120)
async def test_a_stuck_worker_is_replaced_by_its_parent(fresh_database_url: str, tmp_path: Path) -> None:
    """It may not start tasks for some time; its successor may."""
    server = await asyncio.to_thread(Served(fresh_database_url, tmp_path, AGENT_DRAIN_SECONDS="0").wait_until_ready)
    try:
        before = children_of(server.process.pid)
        await execute(fresh_database_url, WITHOUT)

        async def replaced() -> bool:
            return "process_gives_up" in server.log.read_text()

        async with asyncio.timeout(60):
            while not await replaced():  # noqa: ASYNC110  another program's log
                await asyncio.sleep(0.1)
        await execute(fresh_database_url, WITH)
        async with asyncio.timeout(40):
            while server.get("/api/v1/health/live") != 200 or set(children_of(server.process.pid)) & set(before):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert server.process.poll() is None
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_full_disk_is_reported_and_does_not_stop_the_process(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database raises the error of a full disk (53100) for every write."""
    fail = """create function full_disk() returns trigger language plpgsql as
      $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$"""
    full = ("runs", "live_frames", "events")  # the last is where the server tries whether there is room again
    triggers = [
        f"create trigger full_disk before insert on {table} for each row execute function full_disk()" for table in full
    ]
    monkeypatch.setattr(group_commit, "CANARY_SECONDS", 0.1)
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        await execute(fresh_database_url, fail, *triggers)
        for path in ("/runs/wait", "/runs"):
            answer = await service.client.post(f"/api/v1{path}", json=RUN)
            assert answer.status_code == 503
            assert answer.json()["detail"] == DISK_FULL
            assert int(answer.headers["retry-after"]) >= 1
        await eventually(lambda: says(service, "unhealthy"))
        health = (await service.get("/health")).json()
        assert health["checks"]["checkpoint_db"]["reason"] == "the database's disk is full"
        assert (await service.get("/health/ready")).status_code == 503
        assert (await service.get("/health/live")).status_code == 200
        await execute(fresh_database_url, *(f"drop trigger full_disk on {table}" for table in full))
        await eventually(lambda: says(service, "healthy"))
        began = time.monotonic()
        assert (await service.client.post("/api/v1/runs/wait", json=RUN)).status_code == 200
        assert time.monotonic() - began < 10


async def says(service: Service, status: str) -> bool:
    return bool((await service.get("/health")).json()["status"] == status)
