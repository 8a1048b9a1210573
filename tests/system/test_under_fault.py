"""Health of a real server while dependencies fail and under full load."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.system.services import API, Service, serving
from tests.waiting import until

KEY = "sk-canary-3141592653589793"
ASKED = {"assistant_id": "assistant", "input": {"messages": "hello"}}
AGENTS = """\
[agents.assistant]
model = "openai:tiny-chat"
[agents.covered]
model = "openai:tiny-chat"
fallback = ["anthropic:tiny-chat"]
"""


@pytest.fixture
def settings(provider: FakeProvider, tmp_path: Path) -> Any:
    (tmp_path / "agents.toml").write_text(AGENTS)
    return {
        "AGENT_AUTH": "none",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": provider.url,
    }


async def run(service: Service, agent: str = "assistant") -> httpx.Response:
    return await service.client.post(f"{API}/runs/wait", json={**ASKED, "assistant_id": agent})


async def test_a_provider_that_fails_in_real_traffic_degrades_with_the_reason_and_no_secret(
    database_url: str, settings: Any, provider: FakeProvider
) -> None:
    async with serving(database_url, **settings) as service:
        await run(service)
        assert (await service.get("/health")).json()["checks"]["llm"]["status"] == "healthy"
        provider.refused_keys.add(KEY)
        await run(service)
        health = await service.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        llm = health.json()["checks"]["llm"]
        assert (llm["status"], llm["reason"]) == ("degraded", "openai: ModelCredentials")
        assert KEY not in health.text
        assert (await service.get("/health/ready")).status_code == 200
        provider.refused_keys.clear()
        await run(service)
        llm = (await service.get("/health")).json()["checks"]["llm"]
        assert (llm["status"], "reason" in llm) == ("healthy", False)


async def test_a_fallback_in_use_degrades(database_url: str, settings: Any, provider: FakeProvider) -> None:
    async with serving(database_url, **settings) as service:
        provider.plan(*[Fault.SERVER_ERROR] * 3)
        assert (await run(service, "covered")).status_code == 200
        llm = (await service.get("/health")).json()["checks"]["llm"]
        assert (llm["status"], llm["reason"]) == ("degraded", "openai: ModelUnavailable")
        assert llm["vendors"]["anthropic"]["status"] == "healthy"


async def test_probes_send_no_paid_requests_to_providers(
    database_url: str, settings: Any, provider: FakeProvider
) -> None:
    async with serving(database_url, **settings) as service:
        for _ in range(50):
            for path in ("/health", "/health/ready", "/health/live"):
                await service.get(path)
        await service.services.agents.models.probe()
        assert {asked.path for asked in provider.requests} <= {"/v1/models"}
        assert len(provider.requests) <= 2, "one probe of a vendor per minute"


async def test_probes_are_answered_at_the_stream_limit_and_only_new_streams_are_refused(
    database_url: str, settings: Any, provider: FakeProvider
) -> None:
    async with serving(database_url, **settings) as service:
        service.services.streams._max_streams = 0
        refused = await service.client.post(f"{API}/runs/stream", json=ASKED)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        for path in ("/health", "/health/ready", "/health/live"):
            assert (await service.get(path)).status_code == 200


@pytest.fixture
async def server(server_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    url = await clone(server_url)
    server = Served(url, tmp_path, AGENT_STUCK_SECONDS="10")
    try:
        await asyncio.to_thread(server.wait_until_ready)
        yield server
    finally:
        await asyncio.to_thread(server.stop)
        await drop(server_url, url)


@pytest.mark.timeout(150)
async def test_probes_are_answered_while_the_server_is_as_busy_as_it_can_be(server: Served) -> None:
    """64 busy clients: a probe has the five seconds of the image's health check."""
    over = asyncio.Event()
    done = 0

    async def client() -> None:
        nonlocal done
        async with httpx.AsyncClient(base_url=server.base, timeout=30) as http:
            while not over.is_set():
                answer = await http.post("/runs/wait", json=ASKED)
                assert answer.status_code == 200
                done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(client())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=5) as probe:
            paths = ("/livez", "/readyz", "/healthz", "/metrics") * 30
            answers = [(await probe.get(path)).status_code for path in paths]
        over.set()
    assert set(answers) == {200}
    assert done > 64


@pytest.mark.timeout(150)
async def test_a_worker_that_is_killed_is_counted_as_lost(server: Served) -> None:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    [before] = (await asyncio.to_thread(children.read_text)).split()
    os.kill(int(before), signal.SIGKILL)

    def lost() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return "agent_worker_lost_total 1.0" in httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
        return False

    await asyncio.to_thread(until, lost, 40)
