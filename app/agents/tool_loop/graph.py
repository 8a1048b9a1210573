"""The JSON Schemas and the graph of the tool loop, for clients."""

from typing import Any

MODEL_NODE = "agent"
TOOLS_NODE = "tools"
MEMORY_NODE = "memory"
"""The node that summarizes older messages (``app.agents.tool_loop.conversation_window``)."""

_MESSAGES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "messages": {
            "title": "Messages",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["human", "ai", "tool", "system"]},
                    "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
                    "id": {"type": ["string", "null"]},
                },
                "required": ["content"],
            },
        }
    },
    "required": ["messages"],
}

SCHEMAS: dict[str, Any] = {
    "input_schema": {"title": "Input", **_MESSAGES},
    "output_schema": {"title": "Output", **_MESSAGES},
    "state_schema": {"title": "State", **_MESSAGES},
    "config_schema": {"title": "Configurable", "type": "object", "properties": {}},
    "context_schema": None,
}

START = {"id": "__start__", "type": "runnable", "data": {"name": "__start__"}}
END = {"id": "__end__"}


def graph_of(*, tools: bool, memory: bool) -> dict[str, Any]:
    """Return the graph: a cycle of model and tools, or the model alone; the memory node comes before the model."""
    first = MEMORY_NODE if memory else MODEL_NODE
    nodes = [*([MEMORY_NODE] if memory else []), MODEL_NODE, *([TOOLS_NODE] if tools else [])]
    edges: list[dict[str, Any]] = [{"source": "__start__", "target": first}]
    if memory:
        edges.append({"source": MEMORY_NODE, "target": MODEL_NODE})
    if tools:
        edges.append({"source": MODEL_NODE, "target": TOOLS_NODE, "conditional": True})
        edges.append({"source": MODEL_NODE, "target": "__end__", "conditional": True})
        edges.append({"source": TOOLS_NODE, "target": first})
    else:
        edges.append({"source": MODEL_NODE, "target": "__end__"})
    return {
        "nodes": [START, *({"id": name, "type": "runnable", "data": {"name": name}} for name in nodes), END],
        "edges": edges,
    }
