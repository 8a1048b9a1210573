"""Build the agents of this process from the agents file."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.agents.config.agents_file import AgentsFile, AgentSpec
from app.agents.functions.agent import FunctionAgent, FunctionResources
from app.agents.port import Agent
from app.agents.tool_loop.agent import ToolLoop, ToolLoopConfig
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation_window import SummaryMemory
from app.agents.tools.port import LongTerm
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


class AgentCatalog:
    """Agents by name (``app.agents.port.Agents``)."""

    def __init__(
        self,
        file: AgentsFile,
        find_model: FindModel,
        calls: ToolCallRecorder,
        store: LongTerm | None = None,
        own: Sequence[Agent] = (),
        graphs: Mapping[str, Agent] = {},
    ) -> None:
        """``own``: internal agents of the service, which run but are not listed. ``graphs``: those that are graphs."""
        self._own = {agent.name: agent for agent in own}
        self._agents = {
            name: graphs.get(name) or build(name, spec, file, find_model, calls, store)
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


def build(
    name: str,
    spec: AgentSpec,
    file: AgentsFile,
    find_model: FindModel,
    calls: ToolCallRecorder,
    store: LongTerm | None = None,
) -> Agent:
    """Build one agent. Raises ``StartError`` that names the file and the agent."""
    try:
        tools = [find_tool(tool, file.folder, load, store) for tool in spec.tools]
        names = [tool.spec.name for tool in tools]
        for tool in names:
            if names.count(tool) > 1:
                raise StartError(f"two of its tools are named {tool!r}")
        for tool in spec.approve.tools:
            if tool not in {*names, "*"}:
                raise StartError(
                    f"approve.tools names {tool!r}, which is not one of its tools: {', '.join(names) or 'it has none'}"
                )
        model = find_model(spec.model, spec.fallback, spec.cache.ttl if spec.cache else 0)
        config = ToolLoopConfig(
            instructions=spec.instructions,
            limits=spec.limits,
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
        )
        toolbox = Toolbox(tools, calls.count, spec.approve, calls.begin)
        if not spec.function:
            return ToolLoop(name, model, toolbox, config, spec.description, _memory(spec, find_model))
        if spec.memory is not None:
            raise StartError(
                "memory applies to the built-in agent only; a function agent chooses the messages it sends to a model"
            )
        function = load(spec.function, file.folder)
        return FunctionAgent(
            name, spec.function, function, FunctionResources(model, toolbox, config, store), spec.description
        )
    except AgentServiceError as error:
        raise StartError(f"{file.source}: agent {name!r}: {error}") from error


def _memory(spec: AgentSpec, find_model: FindModel) -> SummaryMemory | None:
    """Return the summary memory of ``spec``, with the agent's own model unless it names another."""
    if spec.memory is None:
        return None
    named = spec.memory if spec.memory.model else spec
    return SummaryMemory(spec.memory, find_model(named.model, named.fallback))
