"""What a graph looks like from outside: its nodes, schemas and drawing; and which nodes follow a checkpoint."""

from __future__ import annotations

from typing import Any

from langgraph.channels import EphemeralValue, LastValue
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.pregel import Pregel
from langgraph.types import Send

TASKS = "__pregel_tasks"
HIDDEN_TAG = "langsmith:hidden"

ALWAYS_AVAILABLE = (EphemeralValue, LastValue)
"""Channels whose stored value means that they hold one; others are asked."""


def next_nodes(graph: Pregel[Any, Any, Any, Any], checkpoint: Checkpoint) -> list[str]:
    """Return the nodes that run next from ``checkpoint``: the targets of its sends, then those that are triggered."""
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    seen = checkpoint["versions_seen"]
    found = [one.node for one in values.get(TASKS) or () if isinstance(one, Send)]
    for name in sorted(graph.nodes):
        known = seen.get(name, {})
        for channel in graph.nodes[name].triggers:
            version = versions.get(channel)
            before = known.get(channel)
            if version is None or channel not in values or channel == TASKS:
                continue
            if (before is None or version > before) and _is_available(graph, channel, values[channel]):  # type: ignore[operator]
                found.append(name)
                break
    return found


def _is_available(graph: Pregel[Any, Any, Any, Any], channel: str, value: Any) -> bool:
    spec = graph.channels[channel]
    return type(spec) in ALWAYS_AVAILABLE or bool(spec.from_checkpoint(value).is_available())  # type: ignore[union-attr]


def public_channels(graph: Pregel[Any, Any, Any, Any]) -> list[str]:
    """Return the channels that clients see as the thread's values."""
    names = graph.stream_channels_asis
    return [names] if isinstance(names, str) else list(names)


def serializer(graph: Pregel[Any, Any, Any, Any]) -> JsonPlusSerializer:
    """Return LangGraph's serialiser, which reads the types in the graph's schemas and a short list of safe ones."""
    allowed = getattr(graph, "_serde_allowlist", None) or set()
    return JsonPlusSerializer(allowed_msgpack_modules=None).with_msgpack_allowlist(allowed)


def described(graph: Pregel[Any, Any, Any, Any], name: str) -> dict[str, Any]:
    """Return the nodes, the schemas and the drawings of ``graph``."""
    drawing = graph.get_graph()
    return {
        "nodes": [node for node, spec in graph.nodes.items() if HIDDEN_TAG not in (spec.tags or ())],
        "schemas": _schemas(graph),
        "graph": drawing.to_json(),
        "subgraphs": {
            key: _schemas(one) for key, one in graph.get_subgraphs(recurse=True) if isinstance(one, Pregel)
        },
        "description": (getattr(graph, "description", None) or ""),
    }


def drawn(graph: Pregel[Any, Any, Any, Any], xray: bool | int) -> dict[str, Any]:
    """Return the drawing of ``graph`` with its subgraphs, ``xray`` levels deep (True: all)."""
    return graph.get_graph(xray=xray).to_json()


def _schemas(graph: Pregel[Any, Any, Any, Any]) -> dict[str, Any]:
    context = graph.get_context_jsonschema()
    return {
        "input_schema": graph.get_input_jsonschema(),
        "output_schema": graph.get_output_jsonschema(),
        "state_schema": _state_schema(graph),
        "config_schema": context,
        "context_schema": context,
    }


def _state_schema(graph: Pregel[Any, Any, Any, Any]) -> dict[str, Any]:
    """Return the schema of the values that clients see; of the output where it has no schema of its own."""
    from langchain_core.runnables.utils import create_model

    fields = {name: (graph.channels[name].UpdateType, None) for name in public_channels(graph) if name in graph.channels}
    try:
        return create_model("State", field_definitions=fields).model_json_schema()
    except Exception:  # a type without a JSON Schema
        return graph.get_output_jsonschema()
