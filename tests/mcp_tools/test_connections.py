"""Connections of one server: how many there are, who shares what, and what many failures do."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.agents.mcp import servers as servers_module
from app.agents.mcp import tool as tool_module
from app.agents.mcp.accounts import Account
from app.agents.mcp.port import OnProgress, OnQuestion
from app.agents.mcp.servers import Connector, McpServer, McpServers
from app.agents.mcp.spec import McpServerSpec, McpToolName
from app.agents.tools.remote import ServerAway
from app.infra.egress.addresses import AddressAllowlist
from tests.mcp_tools.conftest import context_of
from tests.waiting import eventually

TOOL = {"name": "say", "description": "Say it.", "inputSchema": {"type": "object"}}


class FakeServer(Connector):
    """What all connections share: how often each thing was done, and whether it fails."""

    def __init__(self) -> None:
        super().__init__(Path(), lambda _: None, AddressAllowlist())
        self.opened = self.closed = self.listed = 0
        self.away = False
        self.failures = 0
        self.error: Exception | None = None
        self.listing: asyncio.Event | None = None

    def connect(self, name: str, spec: McpServerSpec, account: Account | None = None) -> "FakeConnection":
        return FakeConnection(self)


class FakeConnection:
    """A connection (``app.agents.mcp.port.Connection``) to a ``FakeServer``."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.ended = False
        self.revision = "2026-07-28"

    def about(self) -> dict[str, Any]:
        return {}

    async def open(self) -> None:
        if self._server.error is not None:
            raise self._server.error
        if self._server.away:
            raise ServerAway("away")
        self._server.opened += 1

    async def aclose(self) -> None:
        self.ended = True
        await asyncio.sleep(0)
        self._server.closed += 1

    async def list_tools(self) -> list[dict[str, Any]]:
        self._server.listed += 1
        if self._server.listing is not None:
            await self._server.listing.wait()
        return [TOOL]

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any],
        on_progress: OnProgress,
        on_question: OnQuestion,
        continuation: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        if self._server.failures:
            self._server.failures -= 1
            raise ServerAway("away")
        return {"content": [{"type": "text", "text": "said"}]}

    async def list_resources(self, limit: int) -> list[dict[str, Any]]:
        raise AssertionError

    async def read_resource(self, uri: str) -> dict[str, Any]:
        raise AssertionError

    async def task(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def server(fake: FakeServer) -> McpServer:
    servers = McpServers({"fix": McpServerSpec(url="https://fix.example", scope="tenant")}, fake)
    servers.source("agent", "fix", ("*",))
    return servers.get("fix")


async def test_a_thousand_failures_in_a_row_still_have_a_pause(
    fake: FakeServer, server: McpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "MAX_PAUSE", 0.0)
    fake.away = True
    for _ in range(1_100):
        assert not await server.probe()
    assert server.problem == "away"
    await server.aclose()


async def test_a_call_is_sent_again_and_then_the_model_is_informed_or_the_run_waits(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_module, "FIRST_PAUSE", 0.0)
    cases: list[tuple[Any, int, int, str]] = [
        ("tell", 3, 2, "said"),
        ("tell", 3, 3, "The server fix cannot be reached: away"),
        ("wait", 1, 7, "said"),
    ]
    for when_away, attempts, failures, content in cases:
        spec = McpServerSpec(url="https://fix.example", when_away=when_away, attempts=attempts)
        servers = McpServers({"fix": spec}, fake)
        (source,) = servers.sources("agent", [McpToolName("fix", "*")])
        assert await servers.get("fix").probe()
        fake.failures = failures
        (tool,) = source.tools()
        assert ((await tool.call({}, context_of())).content, fake.failures) == (content, 0)
        await servers.aclose()


async def test_whatever_a_probe_raises_the_server_is_tried_again(
    fake: FakeServer, server: McpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_PAUSE", 0.01)
    fake.error = RuntimeError("not foreseen")
    with capture_logs() as lines:
        server.tend()
        await eventually(lambda: len(lines) > 1)
        fake.error = None
        await eventually(lambda: bool(server.sources[0].tools()))
    assert {line["event"] for line in lines} == {"mcp_server_unavailable"}
    await server.aclose()


async def test_the_connections_of_a_server_have_a_limit_and_a_scope_has_one(
    fake: FakeServer, server: McpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "MAX_CONNECTIONS", 2)
    assert await server.probe()
    (tool,) = server.sources[0].tools()
    tenants = [context_of(tenant_id=f"00000000-0000-0000-0000-00000000000{number}") for number in range(1, 4)]
    assert (await tool.call({}, tenants[0])).content == "said"
    assert (fake.opened, fake.closed) == (2, 0)
    both = await asyncio.gather(*(tool.call({}, context) for context in [tenants[1]] * 5))
    assert [result.content for result in both] == ["said"] * 5
    assert fake.opened == 3  # five calls at once of a tenant without a connection made one, in place of the oldest
    await tool.call({}, tenants[2])
    await server.aclose()
    assert (fake.opened, fake.closed) == (4, 4)


async def test_calls_that_want_a_list_at_the_same_time_share_it(fake: FakeServer, server: McpServer) -> None:
    assert await server.probe()
    (tool,) = server.sources[0].tools()
    fake.listing = asyncio.Event()
    calls = [asyncio.create_task(tool.call({}, context_of())) for _ in range(5)]
    await eventually(lambda: fake.listed == 2)
    calls.pop(0).cancel()  # the others still get their list
    fake.listing.set()
    assert [(await call).content for call in calls] == ["said"] * 4
    assert fake.listed == 2
    version = server.sources[0].version
    assert await server.probe()
    assert (list(server.sources[0].tools()), server.sources[0].version) == ([tool], version)  # nothing changed
    await server.aclose()
