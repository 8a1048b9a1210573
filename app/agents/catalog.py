"""Build the agents of this process from the agents file."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from app.agents.a2a.peers import A2APeers
from app.agents.a2a.spec import parse_name as parse_a2a_name
from app.agents.a2a.tool import A2ATool
from app.agents.config.agents_file import AgentsFile, AgentSpec
from app.agents.functions.agent import FunctionAgent, FunctionResources
from app.agents.mcp.servers import McpServers
from app.agents.mcp.spec import ALL, McpToolName, parse_name, shown_pattern
from app.agents.port import Agent
from app.agents.tool_loop.agent import ToolLoop, ToolLoopConfig
from app.agents.tool_loop.approval import ApprovalPolicy
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation_window import SummaryMemory
from app.agents.tools.port import LongTerm, Tool
from app.agents.tools.registry import find_tool
from app.base.code_loader import load
from app.base.errors import AgentServiceError, StartError
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.providers.llm.port import Model


class FindModel(Protocol):
    """Looks up models by name."""

    def __call__(self, name: str, fallback: Sequence[str], cache_ttl: float = 0, /) -> Model:
        """Return the model ``name`` (``vendor:model``; empty for the default), with its fallbacks.

        ``cache_ttl``: lifetime of its cached answers in seconds; 0 disables the cache.
        """
        ...


class ToolServices(NamedTuple):
    """What tools of agents need: who records their ``calls``, the long-term ``store``, MCP ``servers``, A2A ``peers``.

    Without a store, servers or peers agents can be inspected, and not run with the tools that need them.
    """

    calls: ToolCallRecorder
    store: LongTerm | None = None
    servers: McpServers | None = None
    peers: A2APeers | None = None


class AgentCatalog:
    """Agents by name (``app.agents.port.Agents``)."""

    def __init__(
        self,
        file: AgentsFile,
        find_model: FindModel,
        services: ToolServices,
        own: Sequence[Agent] = (),
        graphs: Mapping[str, Agent] = {},
    ) -> None:
        """``own``: internal agents of the service, which run but are not listed. ``graphs``: those that are graphs."""
        self._own = {agent.name: agent for agent in own}
        self._agents = {
            name: graphs.get(name) or build(name, spec, file, find_model, services)
            for name, spec in file.agents.items()
        }
        models = {n: find_model(spec.model, spec.fallback) for n, spec in file.agents.items() if n not in graphs}
        self._models = {name: f"{model.vendor}:{model.name}" for name, model in models.items()}

    def get(self, name: str) -> Agent | None:
        """Return the agent ``name``, or None."""
        return self._agents.get(name) or self._own.get(name)

    def model_of(self, name: str) -> str:
        """Return the primary model of the agent ``name`` as vendor:model; empty for an unknown agent."""
        return self._models.get(name, "")

    def names(self) -> list[str]:
        """Return all names, in the order of the agents file."""
        return list(self._agents)


def build(name: str, spec: AgentSpec, file: AgentsFile, find_model: FindModel, services: ToolServices) -> Agent:
    """Build one agent. Raises ``StartError`` that names the file and the agent."""
    try:
        toolbox = toolbox_of(name, spec, file, services)
        model = find_model(spec.model, spec.fallback, spec.cache.ttl if spec.cache else 0)
        config = ToolLoopConfig(
            instructions=spec.instructions,
            limits=spec.limits,
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
        )
        if not spec.function:
            return ToolLoop(name, model, toolbox, config, spec.description, _memory(spec, find_model))
        if spec.memory is not None:
            raise StartError(
                "memory applies to the built-in agent only; a function agent chooses the messages it sends to a model"
            )
        function = load(spec.function, file.folder)
        resources = FunctionResources(model, toolbox, config, services.store)
        return FunctionAgent(name, spec.function, function, resources, spec.description)
    except AgentServiceError as error:
        raise StartError(f"{file.source}: agent {name!r}: {error}") from error


def graph_toolbox(name: str, spec: AgentSpec, file: AgentsFile, services: ToolServices) -> Toolbox | None:
    """Return the tools of the graph ``name``; None if it has none. Raises ``StartError`` that names file and agent."""
    try:
        for tool in spec.tools:
            if parse_name(tool) is None and parse_a2a_name(tool) is None:
                raise StartError(
                    f"tool {tool!r}: a graph has its own tools; of the agents file it uses those of MCP servers "
                    "(mcp:SERVER/TOOL) and other agents (a2a:NAME)"
                )
        return toolbox_of(name, spec, file, services) if spec.tools or spec.approve != ApprovalPolicy() else None
    except AgentServiceError as error:
        raise StartError(f"{file.source}: agent {name!r}: {error}") from error


def toolbox_of(agent: str, spec: AgentSpec, file: AgentsFile, services: ToolServices) -> Toolbox:
    """Find the tools of ``agent``, and the servers of those that are not our own."""
    remote = [found for tool in spec.tools if (found := parse_name(tool)) is not None]
    peers = A2APeers(file.a2a) if services.peers is None else services.peers

    def found_tool(text: str) -> Tool:
        peer = parse_a2a_name(text)
        return find_tool(text, file.folder, load, services.store) if peer is None else A2ATool(peers.get(peer))

    tools = [found_tool(tool) for tool in spec.tools if parse_name(tool) is None]
    for one in remote:
        if one.server not in file.mcp:
            raise StartError(f"there is no MCP server {one.server!r}: define [mcp.{one.server}]")
    names = [tool.spec.name for tool in tools]
    for tool in names:
        if names.count(tool) > 1:
            raise StartError(f"two of its tools are named {tool!r}")
    for tool in spec.approve.tools:
        if _shown(tool) not in {*names, "*"} and not _is_remote(tool, remote):
            raise StartError(
                f"approve.tools names {tool!r}, which is not one of its tools: {', '.join(names) or 'it has none'}"
            )
    approve = msgspec.structs.replace(spec.approve, tools=list(map(_shown, spec.approve.tools)))
    sources = [] if services.servers is None else services.servers.sources(agent, remote)
    return Toolbox(tools, services.calls.count, approve, services.calls.begin, sources)


def _shown(name: str) -> str:
    """Return ``name``, an entry of ``approve.tools``, in terms of the names that models use."""
    peer = parse_a2a_name(name)
    return shown_pattern(name) if peer is None else peer.tool


def _is_remote(name: str, remote: Sequence[McpToolName]) -> bool:
    """Whether ``name`` is the tool of an MCP server, or all tools of a server, that an agent uses."""
    asked = parse_name(name)
    return asked is not None and any(
        one.server == asked.server and (ALL in {one.tool, asked.tool} or one.tool == asked.tool) for one in remote
    )


def _memory(spec: AgentSpec, find_model: FindModel) -> SummaryMemory | None:
    """Return the summary memory of ``spec``, with the agent's own model unless it names another."""
    if spec.memory is None:
        return None
    named = spec.memory if spec.memory.model else spec
    return SummaryMemory(spec.memory, find_model(named.model, named.fallback))
