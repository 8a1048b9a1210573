"""The agents that this process runs, built from their file."""

from collections.abc import Sequence
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
    """Finds models."""

    def __call__(self, name: str, fallback: Sequence[str], cache_ttl: float = 0, /) -> Model:
        """The model of ``name`` (``vendor:model``, or empty for the default one), with its fallbacks.

        ``cache_ttl``: the seconds that its answers are kept.
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
    ) -> None:
        """``own`` are agents of the service itself: they run, and no list names them."""
        self._own = {agent.name: agent for agent in own}
        self._agents = {name: build(name, spec, file, find_model, calls, store) for name, spec in file.agents.items()}
        models = {name: find_model(spec.model, spec.fallback) for name, spec in file.agents.items()}
        self._models = {name: f"{model.vendor}:{model.name}" for name, model in models.items()}

    def get(self, name: str) -> Agent | None:
        """The agent ``name``."""
        return self._agents.get(name) or self._own.get(name)

    def model_of(self, name: str) -> str:
        """The model that the agent ``name`` asks first, as vendor:model; empty for an unknown agent."""
        return self._models.get(name, "")

    def names(self) -> list[str]:
        """Every name, in the order of the agents file."""
        return list(self._agents)


def build(
    name: str,
    spec: AgentSpec,
    file: AgentsFile,
    find_model: FindModel,
    calls: ToolCallRecorder,
    store: LongTerm | None = None,
) -> Agent:
    """One agent. Raises ``StartError`` that names the file and the agent."""
    try:
        tools = [find_tool(tool, file.folder, load, store) for tool in spec.tools]
        names = [tool.spec.name for tool in tools]
        for tool in names:
            if names.count(tool) > 1:
                raise StartError(f"two of its tools are named {tool!r}")
        for tool in spec.approve.tools:
            if tool not in {*names, "*"}:
                raise StartError(
                    f"approve.tools names {tool!r}, which is none of its tools: {', '.join(names) or 'it has none'}"
                )
        model = find_model(spec.model, spec.fallback, spec.cache.ttl if spec.cache else 0)
        manner = ToolLoopConfig(
            instructions=spec.instructions,
            limits=spec.limits,
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
        )
        toolbox = Toolbox(tools, calls.count, spec.approve, calls.begin)
        if not spec.function:
            return ToolLoop(name, model, toolbox, manner, spec.description, _memory(spec, find_model))
        if spec.memory is not None:
            raise StartError(
                "memory is of the built-in agent; a function agent chooses itself what it asks a model with"
            )
        function = load(spec.function, file.folder)
        return FunctionAgent(
            name, spec.function, function, FunctionResources(model, toolbox, manner, store), spec.description
        )
    except AgentServiceError as error:
        raise StartError(f"{file.source}: agent {name!r}: {error}") from error


def _memory(spec: AgentSpec, find_model: FindModel) -> SummaryMemory | None:
    """The agent's own model sums up where no other is named."""
    if spec.memory is None:
        return None
    named = spec.memory if spec.memory.model else spec
    return SummaryMemory(spec.memory, find_model(named.model, named.fallback))
