"""What a graph looks like from outside: its nodes, schemas and drawing; and which nodes follow a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from langgraph.channels import EphemeralValue, LastValue
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import EmptyChannelError
from langgraph.pregel import Pregel
from langgraph.types import Send
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import TypedDict, get_type_hints, is_typeddict

from agent_service_graphs.documents import ShownChannels, allowing
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.tool_classes import APPROVAL, CLASS, CLASSES

Graph = Pregel[Any, Any, Any, Any]

SAFE_TYPES = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Reads the types that LangGraph takes for safe."""

TASKS = "__pregel_tasks"
HIDDEN_TAG = "langsmith:hidden"

ALWAYS_AVAILABLE = (EphemeralValue, LastValue)
"""Channels whose stored value means that they hold one; others are asked."""


def next_nodes(graph: Graph, checkpoint: Checkpoint) -> list[str]:
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


def _is_available(graph: Graph, channel: str, value: Any) -> bool:
    spec = graph.channels[channel]
    return type(spec) in ALWAYS_AVAILABLE or bool(spec.from_checkpoint(value).is_available())  # type: ignore[union-attr]


def shown_channels(graph: Graph) -> ShownChannels:
    """Return what clients see of the channels of ``graph``."""
    names = graph.stream_channels_asis
    if isinstance(names, str):
        return ShownChannels([], names)
    initial: dict[str, Any] = {}
    for name in names:
        channel: Any = graph.channels[name]
        with contextlib.suppress(EmptyChannelError):
            initial[name] = channel.get()
    return ShownChannels(list(names), initial=initial)


def has_default_context(graph: Graph) -> bool:
    """Whether a context without values is one of ``graph``: all of its fields have defaults, or none is required."""
    kind: Any = graph.context_schema
    if kind is None:
        return False
    if is_typeddict(kind):
        return not kind.__required_keys__
    try:
        kind()
    except Exception:  # noqa: BLE001  whatever the project's class raises
        return False
    return True


def serializer(graph: Graph) -> JsonPlusSerializer:
    """Return LangGraph's serialiser: it reads the types in the schemas of graph and subgraphs, and a few safe ones."""
    graphs = [graph, *(one for _, one in graph.get_subgraphs(recurse=True))]
    return allowing(SAFE_TYPES, frozenset().union(*(getattr(one, "_serde_allowlist", None) or () for one in graphs)))


def described(graph: Graph) -> dict[str, Any]:
    """Return the nodes, the schemas, the drawings and the tools of ``graph``."""
    drawing = graph.get_graph()
    about = {
        "nodes": [node for node, spec in graph.nodes.items() if HIDDEN_TAG not in (spec.tags or ())],
        "schemas": _schemas(graph),
        "graph": drawing.to_json(),
        "subgraphs": {key: _schemas(one) for key, one in graph.get_subgraphs(recurse=True) if isinstance(one, Pregel)},
        "tools": _tools(graph),
        "description": (getattr(graph, "description", None) or ""),
    }
    return _plain(about)


def drawn(graph: Graph, xray: bool | int) -> dict[str, Any]:
    """Return the drawing of ``graph`` with its subgraphs, ``xray`` levels deep (True: all)."""
    return _plain(graph.get_graph(xray=xray).to_json())


def _tools(graph: Graph) -> list[dict[str, Any]]:
    """Return the tools that nodes of ``graph`` and of its subgraphs hold (``ToolNode``), with their classes."""
    graphs = [graph, *(one for _, one in graph.get_subgraphs(recurse=True) if isinstance(one, Pregel))]
    nodes = [spec.bound for one in graphs for spec in one.nodes.values()]
    tools = {name: tool for node in nodes for name, tool in (getattr(node, "tools_by_name", None) or {}).items()}
    return [_tool(name, tool) for name, tool in tools.items()]


def _tool(name: str, tool: Any) -> dict[str, Any]:
    declared = tool.metadata or {}
    return {
        "name": name,
        "description": tool.description,
        "parameters": _parameters(tool.tool_call_schema),
        "tool_class": declared.get(CLASS) if declared.get(CLASS) in CLASSES else None,
        "approval": bool(declared.get(APPROVAL)),
    }


def _parameters(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of ``kind``: one already, or a model of Pydantic 2 or 1."""
    if isinstance(kind, dict):
        return kind
    return _schema(getattr(kind, "model_json_schema", None) or kind.schema, None) or {"type": "object"}


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    """Return ``about`` as JSON holds it: metadata of nodes and defaults in schemas may be any objects."""
    found: dict[str, Any] = value_of(json_of(about))
    return found


def _schemas(graph: Graph) -> dict[str, Any]:
    builder = getattr(graph, "builder", None)
    state = getattr(builder, "state_schema", None)
    context = _schema(graph.get_context_jsonschema, graph.context_schema)
    given = _schema(graph.get_input_jsonschema, getattr(builder, "input_schema", None))
    output = _schema(graph.get_output_jsonschema, getattr(builder, "output_schema", None))
    return {
        "input_schema": given,
        "output_schema": output,
        "state_schema": output if state is None else _schema(lambda: TypeAdapter(state).json_schema(), state),
        "config_schema": context,
        "context_schema": context,
    }


def _schema(make: Callable[[], dict[str, Any] | None], kind: Any) -> dict[str, Any] | None:
    """Return what ``make`` returns; of a TypedDict that Pydantic refuses (before Python 3.12) its fields."""
    try:
        return make()
    except PydanticUserError:
        if not is_typeddict(kind):
            return {"type": "object"}
    fields = get_type_hints(kind, include_extras=True)
    try:
        return TypeAdapter(TypedDict(kind.__name__, fields, total=kind.__total__)).json_schema()  # type: ignore[operator]
    except PydanticUserError:  # a field's type has no JSON Schema
        return {"type": "object", "title": kind.__name__, "properties": {name: {} for name in fields}}
