"""MCP servers on loopback, and what calls them."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.agents.mcp.accounts import AccountStore
from app.agents.mcp.pins import PinStore
from app.agents.mcp.servers import Connector, McpServer, McpServers
from app.agents.mcp.spec import McpServerSpec
from app.agents.tools.port import Tool, ToolContext
from app.infra.egress.addresses import AddressAllowlist
from tests.mcp_tools.server import server
from tests.ports import free_port

PUBLIC_URL = "http://127.0.0.1:8000"
LOOPBACK = AddressAllowlist(["127.0.0.1"])


@contextlib.contextmanager
def serving_http(app: Any) -> Iterator[str]:
    """Serve an ASGI application on loopback, in a thread; yield its base URL."""
    port = free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        log_level="critical",
        lifespan="on",
        loop="asyncio",
        timeout_graceful_shutdown=1,
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def http_url() -> Iterator[str]:
    """The fixture server over HTTP."""
    with serving_http(server.streamable_http_app()) as base:
        yield f"{base}/mcp"


def context_of(events: list[Any] | None = None, **given: Any) -> ToolContext:
    """A tool's context; what it emits is appended to ``events``."""
    defaults: dict[str, Any] = {
        "tenant_id": "00000000-0000-0000-0000-000000000001",
        "thread_id": "t",
        "run_id": "r",
        "call_id": "call_1",
        "idempotency_key": "key-1",
        "emit": (events if events is not None else []).append,
        "value": lambda _name: None,
        "interrupt": lambda *_: None,
    }
    return ToolContext(**{**defaults, **given})


class Connected:
    """One server and its tools for one agent."""

    def __init__(self, servers: McpServers, server: McpServer) -> None:
        self.servers = servers
        self.server = server

    @property
    def tools(self) -> dict[str, Tool]:
        return {tool.spec.name: tool for source in self.server.sources for tool in source.tools()}

    async def call(self, name: str, context: ToolContext | None = None, **args: Any) -> Any:
        return await self.tools[f"{self.server.name}__{name}"].call(args, context or context_of())


@contextlib.asynccontextmanager
async def connected(
    spec: McpServerSpec,
    names: tuple[str, ...] = ("*",),
    lookup: Callable[[str], str | None] = lambda _name: None,
    pins: PinStore | None = None,
    accounts: AccountStore | None = None,
    public_url: str = PUBLIC_URL,
) -> AsyncIterator[Connected]:
    """Connect as the server process does: the servers of a file, of which an agent uses one."""
    servers = McpServers({"fix": spec}, Connector(Path.cwd(), lookup, LOOPBACK, accounts, public_url), pins)
    servers.source("agent", "fix", names)
    servers.start()
    try:
        await servers.wait(30)
        yield Connected(servers, servers.get("fix"))
    finally:
        await servers.aclose()
