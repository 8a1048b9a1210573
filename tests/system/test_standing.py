"""Gauges of the status collectors, which alerts use."""

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


def gauge(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """Sample the collectors and return the series of the gauge ``name``."""
    [sample] = [s for s in service.services.telemetry.loop_lag._samples if s.__qualname__ == "StatusCollector.sample"]
    sample()
    series: dict[tuple[str, ...], float] = getattr(service.services.telemetry.meters, name).series
    return series


async def test_a_worker_is_ready_until_it_drains(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:
        assert gauge(service, "workers_ready") == {(): 1}
        assert gauge(service, "uptime")[()] > 0
        service.services.health.readiness.drain()
        assert gauge(service, "workers_ready") == {(): 0}


async def test_a_schema_that_is_behind_or_ahead_is_reported(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        assert (gauge(service, "migrations_lacking"), gauge(service, "migrations_ahead")) == ({(): 0}, {(): 0})
        await execute(fresh_database_url, "update alembic_version set version_num = '9999'")
        await service.services.health.probe.refresh()
        assert (gauge(service, "migrations_lacking"), gauge(service, "migrations_ahead")) == ({(): 0}, {(): 1})
        await execute(fresh_database_url, "update alembic_version set version_num = '0001'")
        await service.services.health.probe.refresh()
        assert gauge(service, "migrations_lacking")[()] > 5
        assert gauge(service, "migrations_ahead") == {(): 0}


async def test_objectives_and_limits_are_exported(database_url: str) -> None:
    settings: Any = {"AGENT_SLO_RUNS": "0.95", "AGENT_DATABASE_DISK_GB": "20"}
    async with serving(database_url, AGENT_AUTH="none", **settings) as service:
        targets = {"availability": 0.999, "first_token": 0.95, "runs": 0.95, "checkpoints": 0.9999}
        assert gauge(service, "slo_target") == {(name,): target for name, target in targets.items()}
        assert gauge(service, "storage_limit") == {(): 20e9}
        assert gauge(service, "streams_limit") == {(): 10_000}
        assert gauge(service, "redis_connected") == {}


async def test_secrets_report_the_age_of_their_files_and_refused_values(database_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(database_url)
    os.utime(secret, (0, 1_000_000_000))
    settings: Any = {"DATABASE_URL": "", "DATABASE_URL_FILE": str(secret), "AGENT_WEBHOOK_SECRET": PEPPER}
    async with serving("", AGENT_AUTH="none", **settings) as service:
        assert 5e8 < gauge(service, "secret_age")["DATABASE_URL",] < 5e9
        assert set(gauge(service, "secret_age")) == {("DATABASE_URL",)}, "a secret without a file has no age"
        refused = gauge(service, "secret_refused")
        assert {("DATABASE_URL",), ("AGENT_WEBHOOK_SECRET",)} <= set(refused)
        assert not any(refused.values())
        secret.write_text("")
        service.services.persistence.secrets.refresh()
        assert gauge(service, "secret_refused")["DATABASE_URL",] == 1
        assert gauge(service, "secret_age")["DATABASE_URL",] < 60
        secret.unlink()
        assert gauge(service, "secret_refused")["DATABASE_URL",] == 1


async def test_an_open_breaker_is_reported_by_provider(database_url: str) -> None:
    unreachable: Any = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-x"}
    async with serving(database_url, AGENT_AUTH="none", **unreachable) as service:
        service.services.agents.models.model("openai:some-model")
        assert gauge(service, "breaker_open") == {("openai",): 0}
        vendor = service.services.agents.models._vendors["openai"]
        for _ in range(BreakerRules().consecutive):
            vendor.begin().failed(ModelUnavailable("away", vendor="openai"))
        assert gauge(service, "breaker_open") == {("openai",): 1}


async def test_redis_reports_its_connection_and_memory(fresh_database_url: str, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    try:
        async with serving(fresh_database_url, AGENT_AUTH="none", REDIS_URL=redis.url) as service:
            carrier: Any = service.services.engine.redis
            await carrier.probe()
            assert gauge(service, "redis_connected") == {("bus",): 1}
            assert gauge(service, "redis_memory")["used",] > 100_000
            redis.stop()
            await carrier.probe()
            assert gauge(service, "redis_connected") == {("bus",): 0}
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
    assert Meters(buffer).workers_lost.series == {(): 0}, "a closed application is not counted as lost"


async def test_attempts_and_fallbacks_are_counted_by_provider() -> None:
    time, meters = Time(), Meters()
    failing = [[ModelUnavailable("it failed", vendor="first")] for _ in range(2)]
    links = [ModelLink(model, Vendor(model.vendor, time)) for model in (first(*failing), second("Hello"))]
    chain = FailoverModel(links, RetryRules(tries=2), clock=time, sleep=time.sleep, draw=lambda: 1.0, meters=meters)
    await record_events(chain)
    assert meters.model_attempts.series == {("first", "one", "ModelUnavailable"): 2, ("second", "two", ""): 1}
    assert meters.model_fallbacks.series == {("first", "one"): 1}


async def test_the_size_of_the_database_and_its_parts_is_reported(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        meters = Meters()
        await StorageCollector(service.services.persistence.database, meters).refresh()
        sizes = meters.storage_size.series
        assert {part for (part,) in sizes} >= {"database", "checkpoints", "runs", "events", "store"}
        assert all(size > 0 for size in sizes.values())
        assert sizes["database",] > sum(size for part, size in sizes.items() if part != ("database",))
