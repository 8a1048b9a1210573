"""A thread's state outside of runs: values written as the output of a node, and what its subgraphs hold."""

from __future__ import annotations

from typing import Any

from langgraph.types import StateSnapshot, StateUpdate

from agent_service_graphs.checkpoints import Answers, Document, Record
from agent_service_graphs.describing import next_nodes, serializer, shown_channels
from agent_service_graphs.loading import Graph, GraphSource
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.runs import CHECKPOINTER, configurable_of, server_runtime, user_of
from agent_service_graphs.saver import RunSaver

CHECKPOINT = "checkpoint_id"


async def write_state(source: GraphSource, asked: dict[str, Any]) -> dict[str, Any]:
    """Write ``updates`` (node or None, and JSON) as one superstep; return the changes and the nodes that follow.

    In the ``namespace`` of a subgraph no node of the graph itself follows. ``checkpoint_id``: LangGraph's of what was
    written. Raises what LangGraph raises for an unknown node or an update without one that could be any node's.
    """
    namespace = asked["namespace"]
    user = user_of(asked["configurable"])
    ids = {"thread_id": asked["thread_id"], "graph_id": asked["graph_id"], "checkpoint_ns": ""}
    config: dict[str, Any] = {"configurable": configurable_of(asked["configurable"], ids)}
    found: dict[str, Any] = {}
    async with source.open(config, lambda: server_runtime("threads.update", user, None)) as graph:
        document = Document(asked["values"], "", serializer(graph), shown_channels(graph))

        if asked["checkpoint_id"] and document.find(namespace, asked["checkpoint_id"]) is None:
            raise LookupError(
                f"The subgraph has a newer checkpoint than {asked['checkpoint_id']}: read its state again."
            )

        def on_step(record: Record) -> None:
            found.update(changes=document.take_changes(), next=next_nodes(graph, record.checkpoint))

        saver = RunSaver(document, Answers({}), on_step, lambda _waits: None, unreported=())
        config["configurable"][CHECKPOINTER] = saver
        updates = [StateUpdate(None if text is None else value_of(text), node) for node, text in asked["updates"]]
        config["configurable"]["checkpoint_ns"] = namespace
        write: Any = _graph_at(graph, namespace).abulk_update_state
        written = await write(config, [updates])
        found.setdefault("changes", document.take_changes() if namespace else {})
    return {"next": [], **found, CHECKPOINT: written["configurable"][CHECKPOINT]}


async def read_states(source: GraphSource, asked: dict[str, Any]) -> list[bytes]:
    """Return the state in ``namespace`` as JSON, at each of the ``stored`` checkpoints that has one there.

    ``recorded``: as it was when its superstep began; else as it is now, with the tasks that have finished since.
    ``subgraphs``: with the states of its tasks' subgraphs.
    """
    namespace, user = asked["namespace"], user_of(asked["configurable"])
    ids = {"thread_id": asked["thread_id"], "graph_id": asked["graph_id"], "checkpoint_ns": ""}
    config: dict[str, Any] = {"configurable": configurable_of(asked["configurable"], ids)}
    found: list[bytes] = []
    async with source.open(config, lambda: server_runtime("threads.read", user, None)) as graph:
        owner, serde, shown = _graph_at(graph, namespace), serializer(graph), shown_channels(graph)
        for values in asked["stored"]:
            document = Document(values, "", serde, shown)
            record = document.shown(namespace)
            if record is None:
                continue
            saver = RunSaver(document, Answers({}), lambda _record: None, lambda _waits: None)
            at: dict[str, Any] = {**ids, "checkpoint_ns": namespace, CHECKPOINTER: saver}
            if asked["recorded"]:
                at[CHECKPOINT] = record.checkpoint["id"]
            read: Any = owner.aget_state
            found.append(json_of(_shown(await read({"configurable": at}, subgraphs=asked["subgraphs"]))))
    return found


def _graph_at(graph: Graph, namespace: str) -> Graph:
    """Return the graph whose checkpoints are in ``namespace``.

    As in LangGraph it is ``graph`` itself for one that is not found, which a node or a tool calls in its code.
    """
    if not namespace:
        return graph
    name = "|".join(part.split(":")[0] for part in namespace.split("|") if not part.isdigit())
    for _, found in graph.get_subgraphs(namespace=name, recurse=True):
        if hasattr(found, "aget_state"):
            return found  # type: ignore[return-value]
    return graph


def _shown(snapshot: StateSnapshot) -> dict[str, Any]:
    at, parent = _reference(snapshot.config), _reference(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(one) for one in snapshot.tasks],
        "metadata": snapshot.metadata,
        "created_at": snapshot.created_at,
        "checkpoint": at,
        "parent_checkpoint": parent,
        "interrupts": list(snapshot.interrupts),
        "checkpoint_id": None if at is None else at[CHECKPOINT],
        "parent_checkpoint_id": None if parent is None else parent[CHECKPOINT],
    }


def _reference(config: Any) -> dict[str, Any] | None:
    at = (config or {}).get("configurable", {})
    if CHECKPOINT not in at:
        return None
    return {name: at.get(name, "") for name in ("thread_id", "checkpoint_ns", CHECKPOINT)}


def _task(task: Any) -> dict[str, Any]:
    nested = task.state
    config = nested.config if isinstance(nested, StateSnapshot) else nested
    at = None if config is None else config["configurable"]
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": task.error if task.error is None or isinstance(task.error, str) else repr(task.error),
        "interrupts": list(task.interrupts),
        "checkpoint": None if at is None else {name: at[name] for name in ("thread_id", "checkpoint_ns")},
        "state": _shown(nested) if isinstance(nested, StateSnapshot) else None,
        "result": task.result,
    }
