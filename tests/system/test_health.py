"""The system routes on the whole program."""

from collections.abc import AsyncIterator
from datetime import datetime
from importlib.metadata import version

import pytest

from app.security.access.structs import MONITOR, READ
from app.server.asgi import layers
from tests.database import execute
from tests.system.services import NOWHERE, Service, built, client_of, serving


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none") as service:
        yield service


async def test_health_shows_every_dependency(service: Service) -> None:
    answer = await service.get("/health")
    assert answer.status_code == 200
    health = answer.json()
    assert set(health) == {"status", "checks", "latency_ms", "version"}
    assert (health["status"], health["version"]) == ("healthy", version("agent-service"))
    assert set(health["checks"]) == {"llm", "checkpoint_db", "redis", "cache", "workers"}
    database = health["checks"]["checkpoint_db"]
    assert (database["status"], database["migration"]) == ("healthy", "head")
    assert database["latency_ms"] > 0
    assert datetime.fromisoformat(database["observed_at"]).tzinfo is not None
    assert health["checks"]["redis"] == health["checks"]["cache"] == {"status": "not_configured"}
    assert health["checks"]["workers"] == {"status": "healthy", "phase": "ready"}
    assert health["checks"]["llm"]["status"] == "healthy"


async def test_health_details_need_a_key_with_the_scope_monitor(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        bare = {"status": "healthy"}
        assert (await service.get("/health")).json() == bare
        assert (await service.get("/health", "as_wrong")).json() == bare
        assert (await service.get("/health", await service.key("someone", READ))).json() == bare
        assert "checks" in (await service.get("/health", await service.key("someone", MONITOR))).json()


async def test_the_probes_have_short_paths_and_are_not_cached(service: Service) -> None:
    for path, status in (("/healthz", "healthy"), ("/readyz", "ready"), ("/livez", "alive")):
        answer = await service.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert answer.headers["cache-control"] == "no-store"


async def test_ok_and_info_are_what_langgraph_clients_read(service: Service) -> None:
    assert (await service.get("/ok")).json() == {"ok": True}
    info = (await service.get("/info")).json()
    assert info["version"] == version("agent-service")
    assert info["flags"]["assistants"] is True
    assert info["flags"]["crons"] is True
    assert info["host"]["kind"] == "self-hosted"
    assert {"project_id", "host_revision_id", "revision_id", "tenant_id"} < set(info["host"])
    assert info["langgraph_py_version"] is None


async def test_metrics_are_text_in_the_requested_format(service: Service) -> None:
    plain = await service.client.get("/metrics")
    assert plain.status_code == 200
    # Prometheus 3 refuses a page whose type has a parameter twice
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "http_server_request_duration" in (await service.client.get("/metrics")).text
    asked = await service.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert asked.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert asked.text.endswith("# EOF\n")


async def test_a_draining_process_is_alive_and_not_ready(service: Service) -> None:
    service.services.health.readiness.drain()
    ready = await service.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "not ready", "reason": "draining"})
    health = await service.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["workers"] == {"status": "degraded", "phase": "draining"}
    assert (await service.get("/health/live")).status_code == 200


async def test_a_process_that_has_not_started_is_alive_and_not_ready() -> None:
    services = built(NOWHERE, AGENT_AUTH="none")
    app = layers(services)
    async with client_of(app) as client:
        service = Service(services, app, client)
        ready = await service.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "starting")
        assert (await service.get("/health")).status_code == 503
        assert (await service.get("/health/live")).json() == {"status": "alive"}


async def test_a_failing_provider_degrades_and_leaves_the_process_ready(database_url: str) -> None:
    unreachable = "http://127.0.0.1:9/v1"
    async with serving(database_url, AGENT_AUTH="none", OPENAI_BASE_URL=unreachable) as service:
        service.services.agents.models.model("openai:some-model")
        await service.services.agents.models.probe()
        answer = await service.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        llm = answer.json()["checks"]["llm"]
        assert llm["status"] == "degraded"
        assert llm["observed_at"] == llm["vendors"]["openai"]["observed_at"] is not None
        assert llm["vendors"]["openai"]["error"] == "ModelUnavailable"
        assert (await service.get("/health/ready")).status_code == 200


async def test_a_schema_that_lacks_a_migration_is_not_ready_and_one_ahead_is(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        await execute(fresh_database_url, "update alembic_version set version_num = '9999'")
        await service.services.health.probe.refresh()
        health = await service.get("/health")
        assert (health.status_code, health.json()["checks"]["checkpoint_db"]["migration"]) == (200, "ahead: 9999")
        assert (await service.get("/health/ready")).status_code == 200

        await execute(fresh_database_url, "delete from alembic_version")
        await service.services.health.probe.refresh()
        ready = await service.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"][:35]) == (503, "the database lacks the migrations 0")
        health = await service.get("/health")
        assert health.status_code == 503
        assert health.json()["checks"]["checkpoint_db"]["migration"].startswith("lacks 0001")

        await execute(fresh_database_url, "drop table alembic_version")
        await service.services.health.probe.refresh()
        assert (await service.get("/health/ready")).status_code == 503
