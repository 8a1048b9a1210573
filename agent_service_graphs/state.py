"""Values written to a thread's state from outside a run, as the output of a node."""

from __future__ import annotations

from typing import Any

from langgraph.types import StateUpdate

from agent_service_graphs.checkpoints import Answers, Document, Record
from agent_service_graphs.describing import next_nodes, public_channels, result_channel, serializer
from agent_service_graphs.loading import GraphSource
from agent_service_graphs.projection import value_of
from agent_service_graphs.runs import CHECKPOINTER, User, server_runtime
from agent_service_graphs.saver import RunSaver


async def write_state(source: GraphSource, asked: dict[str, Any]) -> dict[str, Any]:
    """Write ``updates`` (node or None, and JSON) as one superstep; return the changes and the nodes that follow.

    Raises what LangGraph raises for an unknown node or an update without one that could be any node's.
    """
    user = asked["configurable"].get("langgraph_auth_user")
    user = None if user is None else User(user)
    ids = {"thread_id": asked["thread_id"], "graph_id": asked["graph_id"], "checkpoint_ns": ""}
    config: dict[str, Any] = {"configurable": {**asked["configurable"], **ids}}
    found: dict[str, Any] = {}
    async with source.open(config, lambda: server_runtime("threads.update", user, None)) as graph:
        public, result = public_channels(graph), result_channel(graph)
        document = Document(asked["values"], "", serializer(graph), public, result)

        def on_step(record: Record) -> None:
            found.update(changes=document.take_changes(), next=next_nodes(graph, record.checkpoint))

        saver = RunSaver(document, Answers({}), on_step, lambda _waits: None, unreported=())
        config["configurable"][CHECKPOINTER] = saver
        updates = [StateUpdate(None if text is None else value_of(text), node) for node, text in asked["updates"]]
        write: Any = graph.abulk_update_state
        await write(config, [updates])
    return found
