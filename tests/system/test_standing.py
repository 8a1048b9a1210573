"""Gauges that tell how things stand: what the alerts are made of."""

import os
from pathlib import Path
from typing import Any

from app.base.errors import ModelUnavailable
from app.features.system.collectors import StorageCollector
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import SharedMetricsBuffer
from app.providers.llm.failover import FailoverModel, ModelLink, RetryRules
from app.providers.llm.vendor_health import BreakerRules, Vendor
from tests.database import execute
from tests.llm.recording import record_events
from tests.llm.test_failover import Time, first, second
from tests.redis import RedisServer
from tests.system.services import PEPPER, Service, serving


def told(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """What the gauge ``name`` says after a look."""
    [sample] = [s for s in service.services.telemetry.loop_lag._samples if s.__qualname__ == "StatusCollector.sample"]
    sample()
    series: dict[tuple[str, ...], float] = getattr(service.services.telemetry.meters, name).series
    return series


async def test_a_worker_is_ready_until_it_drains(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:
        assert told(service, "workers_ready") == {(): 1}
        assert told(service, "uptime")[()] > 0
        service.services.health.readiness.drain()
        assert told(service, "workers_ready") == {(): 0}


async def test_a_schema_that_is_behind_or_ahead_is_told(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        assert (told(service, "migrations_lacking"), told(service, "migrations_ahead")) == ({(): 0}, {(): 0})
        await execute(fresh_database_url, "update alembic_version set version_num = '9999'")
        await service.services.health.probe.refresh()
        assert (told(service, "migrations_lacking"), told(service, "migrations_ahead")) == ({(): 0}, {(): 1})
        await execute(fresh_database_url, "update alembic_version set version_num = '0001'")
        await service.services.health.probe.refresh()
        assert told(service, "migrations_lacking")[()] > 5
        assert told(service, "migrations_ahead") == {(): 0}


async def test_objectives_and_limits_are_there_to_be_compared_with(database_url: str) -> None:
    settings: Any = {"AGENT_SLO_RUNS": "0.95", "AGENT_DATABASE_DISK_GB": "20"}
    async with serving(database_url, AGENT_AUTH="none", **settings) as service:
        targets = {"availability": 0.999, "first_token": 0.95, "runs": 0.95, "checkpoints": 0.9999}
        assert told(service, "slo_target") == {(name,): target for name, target in targets.items()}
        assert told(service, "storage_limit") == {(): 20e9}
        assert told(service, "streams_limit") == {(): 10_000}
        assert told(service, "redis_connected") == {}


async def test_secrets_tell_the_age_of_their_files_and_whether_a_new_value_was_refused(
    database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.write_text(database_url)
    os.utime(secret, (0, 1_000_000_000))
    settings: Any = {"DATABASE_URL": "", "DATABASE_URL_FILE": str(secret), "AGENT_WEBHOOK_SECRET": PEPPER}
    async with serving("", AGENT_AUTH="none", **settings) as service:
        assert 5e8 < told(service, "secret_age")["DATABASE_URL",] < 5e9
        assert set(told(service, "secret_age")) == {("DATABASE_URL",)}, "what comes from no file has no age"
        refused = told(service, "secret_refused")
        assert {("DATABASE_URL",), ("AGENT_WEBHOOK_SECRET",)} <= set(refused)
        assert not any(refused.values())
        secret.write_text("")
        service.services.persistence.secrets.refresh()
        assert told(service, "secret_refused")["DATABASE_URL",] == 1
        assert told(service, "secret_age")["DATABASE_URL",] < 60
        secret.unlink()
        assert told(service, "secret_refused")["DATABASE_URL",] == 1


async def test_an_open_breaker_is_told_by_provider(database_url: str) -> None:
    nobody: Any = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-x"}
    async with serving(database_url, AGENT_AUTH="none", **nobody) as service:
        service.services.agents.models.model("openai:some-model")
        assert told(service, "breaker_open") == {("openai",): 0}
        vendor = service.services.agents.models._vendors["openai"]
        for _ in range(BreakerRules().consecutive):
            vendor.begin().failed(ModelUnavailable("away", vendor="openai"))
        assert told(service, "breaker_open") == {("openai",): 1}


async def test_redis_tells_whether_it_is_there_and_how_full_it_is(fresh_database_url: str, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    try:
        async with serving(fresh_database_url, AGENT_AUTH="none", REDIS_URL=redis.url) as service:
            carrier: Any = service.services.engine.redis
            await carrier.probe()
            assert told(service, "redis_connected") == {("bus",): 1}
            assert told(service, "redis_memory")["used",] > 100_000
            redis.stop()
            await carrier.probe()
            assert told(service, "redis_connected") == {("bus",): 0}
    finally:
        redis.stop()


async def test_a_worker_that_ends_without_closing_is_counted_by_its_successor(database_url: str) -> None:
    buffer = SharedMetricsBuffer()
    assert Meters(buffer).workers_lost.series == {(): 0}
    buffer.leave()
    killed = Meters(buffer)
    assert killed.workers_lost.series == {(): 1}
    buffer.close()
    buffer.leave()
    assert Meters(buffer).workers_lost.series == {(): 1}
    async with serving(database_url, AGENT_AUTH="none") as service:
        buffer = service.services.telemetry.meters.buffer
    assert Meters(buffer).workers_lost.series == {(): 0}, "a House that is closed says so"


async def test_tries_and_fallbacks_are_counted_by_provider() -> None:
    time, meters = Time(), Meters()
    failing = [[ModelUnavailable("it failed", vendor="first")] for _ in range(2)]
    links = [ModelLink(model, Vendor(model.vendor, time)) for model in (first(*failing), second("Hello"))]
    chain = FailoverModel(links, RetryRules(tries=2), clock=time, sleep=time.sleep, draw=lambda: 1.0, meters=meters)
    await record_events(chain)
    assert meters.model_attempts.series == {("first", "one", "ModelUnavailable"): 2, ("second", "two", ""): 1}
    assert meters.model_fallbacks.series == {("first", "one"): 1}


async def test_the_size_of_the_database_and_of_its_parts_is_told(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        meters = Meters()
        await StorageCollector(service.services.persistence.database, meters).refresh()
        sizes = meters.storage_size.series
        assert {part for (part,) in sizes} >= {"database", "checkpoints", "runs", "events", "store"}
        assert all(size > 0 for size in sizes.values())
        assert sizes["database",] > sum(size for part, size in sizes.items() if part != ("database",))
