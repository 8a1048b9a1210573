"""Stream mode ``events``: the run in the format of LangChain's ``astream_events`` (version 2).

https://reference.langchain.com/python/langchain_core/runnables/#langchain_core.runnables.base.Runnable.astream_events
"""

from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import START_NODE
from app.base.ids import task_id
from app.domain.events import (
    CheckpointPosition,
    Ended,
    Event,
    Failed,
    InputApplied,
    MessageDelta,
    RunStarted,
    StepCommitted,
)
from app.domain.state import NO_VALUES, Values
from app.engine.streams.modes.messages import PartialMessage
from app.engine.streams.modes.view import ViewFrame

MODEL = "ChatModel"


class TracesView:
    """Emits the agent and its nodes as chains, and the model's messages as chat models."""

    moves = True

    def __init__(self) -> None:
        self._run = RunStarted(run_id="", attempt=1)
        self._running: dict[str, UUID] = {}
        self._message_id = ""
        self._growing = PartialMessage()
        self._values: Values = NO_VALUES
        self._failed = False

    def wants(self, event: Event) -> bool:
        """Whether it concerns steps or the model's output."""
        return isinstance(event, InputApplied | StepCommitted | MessageDelta)

    def needs_values(self, event: Event) -> bool:
        """Whether nodes start with its values, or the run ends with them."""
        return isinstance(event, InputApplied | StepCommitted)

    def render(self, event: Event, values: Values) -> list[ViewFrame]:
        """Return the frames of ``event``."""
        match event:
            case RunStarted():
                self._run = event
                return [self._agent("on_chain_start", {"input": event.input})]
            case MessageDelta():
                return self._delta(event)
            case InputApplied(checkpoint_id, CheckpointPosition() as move):
                self._values = values
                return self._starts(checkpoint_id, move)
            case StepCommitted(move=CheckpointPosition() as move):
                self._values = values
                pieces: list[ViewFrame] = []
                for node, output in event.outputs():
                    pieces += [*self._unannounced(node, move), *self._step(event.step, node, output)]
                return [*pieces, *self._starts(event.checkpoint_id, move)]
            case Failed():
                self._failed = True
                return []
            case Ended() if not self._failed:
                return [self._agent("on_chain_end", {"output": self._values}, self._values)]
            case _:
                return []

    def _starts(self, checkpoint_id: str, move: CheckpointPosition) -> list[ViewFrame]:
        pieces = []
        for node in move.starts:
            if node == START_NODE:  # reads the input, and is no node of the graph
                continue
            self._running[node] = task_id(UUID(checkpoint_id), node)
            pieces.append(self._node("on_chain_start", node, move.step + 1, {"input": self._values}, self._values))
        return pieces

    def _unannounced(self, node: str, move: CheckpointPosition) -> list[ViewFrame]:
        """Start a node that ran before the announced ones, which start again after it."""
        if node in self._running or node == START_NODE or not move.parent_id:
            return []
        return self._starts(move.parent_id, msgspec.structs.replace(move, starts=(node,), step=move.step - 1))

    def _step(self, step: int, node: str, changed: msgspec.Raw) -> list[ViewFrame]:
        if node == START_NODE:
            return []
        return [
            self._node("on_chain_stream", node, step, {"chunk": changed}),
            self._node("on_chain_end", node, step, {"output": changed}),
            self._agent("on_chain_stream", {"chunk": {node: changed}}),
        ]

    def _delta(self, event: MessageDelta) -> list[ViewFrame]:
        pieces = []
        if event.message_id != self._message_id:
            self._message_id, self._growing = event.message_id, PartialMessage()
            pieces.append(self._model("on_chat_model_start", event, {"input": {}}))
        self._growing.add(event)
        chunk: dict[str, Any] = {"content": event.text, "type": "AIMessageChunk", "id": event.message_id}
        if event.tool_call is not None:
            chunk["tool_call_chunks"] = [{**event.tool_call, "type": "tool_call_chunk"}]
        if event.last:
            chunk["chunk_position"] = "last"
        pieces.append(self._model("on_chat_model_stream", event, {"chunk": chunk}))
        if event.last:
            output = self._growing.message(event.message_id)
            pieces.append(self._model("on_chat_model_end", event, {"output": output}))
        return pieces

    def _agent(self, kind: str, data: dict[str, Any], values: Values | None = None) -> ViewFrame:
        return self._say(kind, self._run.agent, self._run.run_id, data, [], {})._replace(values=values)

    def _node(self, kind: str, node: str, step: int, data: dict[str, Any], values: Values | None = None) -> ViewFrame:
        where = {"langgraph_node": node, "langgraph_step": step}
        said = self._say(kind, node, str(self._running.get(node, "")), data, [self._run.run_id], where)
        return said._replace(values=values)

    def _model(self, kind: str, event: MessageDelta, data: dict[str, Any]) -> ViewFrame:
        where = {"langgraph_node": event.node, "langgraph_step": event.step, "ls_model_type": "chat"}
        parents = [self._run.run_id, str(self._running.get(event.node, ""))]
        return self._say(kind, MODEL, event.message_id.removeprefix("run--"), data, parents, where)

    def _say(
        self, kind: str, name: str, run_id: str, data: dict[str, Any], parents: list[str], where: dict[str, Any]
    ) -> ViewFrame:
        run = self._run
        event = {
            "event": kind,
            "data": data,
            "name": name,
            "tags": [f"graph:step:{where['langgraph_step']}"] if where else [],
            "run_id": run_id,
            "metadata": {"run_id": run.run_id, "thread_id": run.thread_id, "graph_id": run.agent, **where},
            "parent_ids": parents,
        }
        return ViewFrame("events", "events", event)
