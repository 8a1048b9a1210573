"""What an application offers to a run: tools that it runs itself, and what the model is to know."""

from typing import Any

import msgspec

from app.agents.port import AcceptsModelOptions, Agent, ModelOptions
from app.base.errors import Invalid
from app.engine.structs import ConfigBody
from app.protocols.ag_ui.structs import ClientTool, RunAgentInput
from app.providers.llm.port import ToolSpec

CONFIGURABLE = "ag_ui"
"""Member of a run's ``configurable`` with what the application passes."""

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def offered_by(data: RunAgentInput, agent: Agent) -> dict[str, Any]:
    """Return the members of ``RunCreate`` with what ``data`` offers.

    The model of an agent of the agents file gets the tools and the context; agents that call models themselves find
    both in ``configurable``, with ``forwardedProps``. Raises ``Invalid``.
    """
    offered: dict[str, Any] = {}
    passed: dict[str, Any] = {} if not data.forwarded_props else {"forwardedProps": data.forwarded_props}
    if isinstance(agent, AcceptsModelOptions):
        options = ModelOptions(
            tools=tuple(_tool(tool, at) for at, tool in enumerate(data.tools or ())), instructions=_context(data)
        )
        if options != ModelOptions():
            offered["model_options"] = options
    else:
        passed |= {
            name: msgspec.to_builtins(given)
            for name, given in (("tools", data.tools), ("context", data.context))
            if given
        }
    if passed:
        offered["config"] = ConfigBody(configurable={CONFIGURABLE: passed})
    return offered


def _tool(tool: ClientTool, at: int) -> ToolSpec:
    parameters = NO_ARGUMENTS if tool.parameters is None else tool.parameters
    if not isinstance(parameters, dict):
        pointer = f"/tools/{at}/parameters"
        raise Invalid(f"tools[{at}].parameters must be a JSON Schema.", ((pointer, "must be a JSON Schema"),))
    return ToolSpec(tool.name, tool.description, {**NO_ARGUMENTS, **parameters})


def _context(data: RunAgentInput) -> str:
    entries = [f"- {entry.description}: {entry.value}" for entry in data.context or ()]
    return "\n".join(["What the application says:", *entries]) if entries else ""
