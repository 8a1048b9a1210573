"""Build the parts of an agents file as a server does at start-up, to validate them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from app.agents.a2a.peers import A2APeers
from app.agents.catalog import ToolServices, build, graph_toolbox
from app.agents.config.agents_file import AgentsFile
from app.agents.config.store_index import StoreSpec
from app.agents.mcp.accounts import AccountStore
from app.agents.mcp.servers import Connector, McpServers
from app.agents.mcp.spec import McpToolName, parse_name
from app.base.errors import StartError
from app.features.access.custom_auth import handlers_of
from app.features.store.index.versions import validate_indexes
from app.infra.egress.addresses import AddressAllowlist
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import NO_TRACER
from app.providers.embeddings.registry import build_embedder
from app.providers.llm.registry import ModelRegistry
from app.server.composition.mcp import own_address
from app.server.composition.models import graph_worker

Check = Callable[[], object]
"""Builds one part. Raises the ``AgentServiceError`` that a server would raise at start-up."""


def agent_checks(
    settings: Settings,
    file: AgentsFile,
    models: ModelRegistry,
    meters: Meters,
    broken: Mapping[str, str] = {},
    servers: McpServers | None = None,
) -> Iterator[tuple[str, Check]]:
    """Yield the name and check of each agent of ``file``, then of ``[store]`` and ``[auth]`` if present.

    ``broken``: why agents cannot be used, by name (``broken_graphs``, ``broken_servers``). ``servers``: without them
    the tools of MCP servers are not looked at.
    """
    peers = A2APeers(file.a2a, settings.look_up, AddressAllowlist(settings.egress.allow.split(",")))
    services = ToolServices(ToolCallRecorder(meters, NO_TRACER), servers=servers, peers=peers)
    for name, spec in file.agents.items():
        if name in broken:
            yield name, partial(_check_broken, broken[name], file.source)
        elif spec.graph:
            yield name, partial(graph_toolbox, name, spec, file, services)
        else:
            yield name, partial(build, name, spec, file, models.model, services)
    if file.store != StoreSpec():
        yield "[store]", lambda: validate_indexes(file, lambda name, size: build_embedder(name, size, models))
    if file.auth is not None:
        yield "[auth]", lambda: handlers_of(file, settings.auth.mode)


def _check_broken(reason: str, source: str) -> None:
    raise StartError(f"{source}: {reason}")


async def broken_graphs(file: AgentsFile) -> dict[str, str]:
    """Load the graphs of ``file`` in their process; return why some cannot be used, by name."""
    worker = graph_worker(file)
    if worker is None:
        return {}
    worker.start()
    try:
        await worker.wait()
        return {name: graph.error for name, graph in worker.graphs.items() if graph.error}
    finally:
        await worker.aclose()


def require_graphs(file: AgentsFile) -> None:
    """Load the graphs of ``file``. Raises ``StartError`` with each that cannot be used."""
    broken = asyncio.run(broken_graphs(file))
    if broken:
        reasons = "; ".join(f"the graph {name!r} cannot be used: {reason}" for name, reason in broken.items())
        raise StartError(f"{file.source}: {reasons}")


def mcp_servers(settings: Settings, file: AgentsFile, accounts: AccountStore | None = None) -> McpServers:
    """Return the MCP servers of ``file``, as a server process connects to them, with the ``accounts`` of people."""
    allowed = AddressAllowlist(settings.egress.allow.split(","))
    return McpServers(file.mcp, Connector(file.folder, settings.look_up, allowed, accounts, own_address(settings)))


async def broken_servers(settings: Settings, file: AgentsFile) -> dict[str, str]:
    """Connect to the MCP servers that agents of ``file`` use; return why some agents cannot work, by name."""
    needs = {name: servers_of(spec.tools) for name, spec in file.agents.items()}
    servers = mcp_servers(settings, file)
    try:
        wanted = sorted({server for names in needs.values() for server in names if server in file.mcp})
        await asyncio.gather(*(servers.get(name).probe() for name in wanted))
        reasons = {name: problem for name in wanted if (problem := servers.get(name).problem)}
    finally:
        await servers.aclose()
    return {
        agent: "; ".join(f"agent {agent!r}: the MCP server {name!r}: {reasons[name]}" for name in found)
        for agent, names in needs.items()
        if (found := [name for name in names if name in reasons])
    }


def servers_of(tools: Sequence[str]) -> list[str]:
    """Return the MCP servers that the names of ``tools`` contain."""
    named: list[McpToolName] = []
    for tool in tools:
        with contextlib.suppress(StartError):  # reported when the agent is built
            if (name := parse_name(tool)) is not None:
                named.append(name)
    return sorted({name.server for name in named})
