"""The loop as clients draw and describe it: JSON Schemas and a graph."""

from typing import Any

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
MODEL = {"id": "agent", "type": "runnable", "data": {"name": "agent"}}
TOOLS = {"id": "tools", "type": "runnable", "data": {"name": "tools"}}
END = {"id": "__end__"}

GRAPH: dict[str, Any] = {
    "nodes": [START, MODEL, TOOLS, END],
    "edges": [
        {"source": "__start__", "target": "agent"},
        {"source": "agent", "target": "tools", "conditional": True},
        {"source": "agent", "target": "__end__", "conditional": True},
        {"source": "tools", "target": "agent"},
    ],
}
GRAPH_WITHOUT_TOOLS: dict[str, Any] = {
    "nodes": [START, MODEL, END],
    "edges": [{"source": "__start__", "target": "agent"}, {"source": "agent", "target": "__end__"}],
}
