"""A real PostgreSQL that stops, hangs and comes back: health follows, liveness does not depend on it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import QueuePool

from app.base.errors import Unavailable
from app.base.ids import new_id
from app.features.system.database_probe import PROBE_TIMEOUT
from app.infra.db import migrations
from tests.outages import Server
from tests.system.services import Service, serving

NOTICED_SECONDS = 5.0
"""Time within which an outage must be reported."""

BACK_SECONDS = 5.0
"""Time within which its end should be reported."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A PostgreSQL server for one test."""
    server = Server(tmp_path, {"fsync": "off"})
    server.begin()
    try:
        migrations.upgrade(server.url)
        yield server
    finally:
        server.thaw()
        server.stop()


@pytest.fixture
async def service(server: Server) -> AsyncIterator[Service]:
    async with serving(server.url, AGENT_AUTH="none", probe_timeout=PROBE_TIMEOUT) as service:
        yield service
        await asyncio.to_thread(server.thaw)


async def seconds_until(condition: Callable[[], Awaitable[bool]]) -> float:
    began = time.monotonic()
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  what it asks about is another program
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def expect_outage(service: Service) -> None:
    async def is_unready() -> bool:
        return (await service.get("/health/ready")).status_code == 503

    assert await seconds_until(is_unready) < NOTICED_SECONDS
    health = await service.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    database = health.json()["checks"]["checkpoint_db"]
    assert (database["status"], database["reason"]) == ("unhealthy", "the database cannot be reached")
    assert "migration" not in database
    began = time.monotonic()
    live = await service.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    assert time.monotonic() - began < 3  # it asks nothing of the database


async def expect_recovery(service: Service) -> None:
    async def is_ready() -> bool:
        return (await service.get("/health/ready")).status_code == 200

    assert await seconds_until(is_ready) < BACK_SECONDS
    health = await service.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")


async def test_a_stopped_database_and_its_return_are_noticed(server: Server, service: Service) -> None:
    await asyncio.to_thread(server.stop)
    await expect_outage(service)
    await asyncio.to_thread(server.begin)
    await expect_recovery(service)


async def test_a_hanging_database_and_its_return_are_noticed(server: Server, service: Service) -> None:
    server.freeze()
    await expect_outage(service)
    server.thaw()
    await expect_recovery(service)


async def test_a_key_is_not_accepted_while_the_database_hangs(server: Server, service: Service) -> None:
    key = await service.key("default")
    server.freeze()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await service.services.auth.keys.authenticate(key)
    assert time.monotonic() - began < BACK_SECONDS
    server.thaw()
    assert await seconds_until(lambda: is_let_in(service, key)) < BACK_SECONDS


async def is_let_in(service: Service, key: str) -> bool:
    try:
        await service.services.auth.keys.authenticate(key)
    except Unavailable:  # as for other requests, until the database is back
        return False
    return True


async def test_requests_that_take_every_connection_do_not_make_the_process_unready(service: Service) -> None:
    pool = service.services.persistence.database._requests.pool
    assert isinstance(pool, QueuePool)
    async with contextlib.AsyncExitStack() as held:
        while pool.checkedout() < pool.size():
            await held.enter_async_context(
                service.services.persistence.database.reading(new_id())
            )  # one tenant may use a part of them
        before = service.services.health.probe.database_state
        await service.services.health.probe.refresh()
        assert service.services.health.probe.database_state.observed_at > before.observed_at
        assert (await service.get("/health/ready")).status_code == 200
        assert (await service.get("/health")).json()["status"] == "healthy"
