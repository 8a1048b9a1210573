"""Stream modes ``tasks``, ``checkpoints`` and ``debug``: a run's steps as they start and end."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import START_NODE
from app.base.ids import origin_id, task_id
from app.domain.events import CheckpointPosition, Event, Failed, InputApplied, Interrupted, RunStarted, StepCommitted
from app.domain.state import Values
from app.engine.checkpoints.entry import FIRST_STEP
from app.engine.streams.modes.view import ViewFrame

NOTHING = msgspec.Raw(b"{}")


class StepsView:
    """Emits tasks and checkpoints, and both again wrapped for ``debug``."""

    moves = True

    def __init__(self, modes: Collection[str]) -> None:
        self._modes = modes
        self._run = RunStarted(run_id="", attempt=1)
        self._running: dict[str, UUID] = {}

    def wants(self, event: Event) -> bool:
        """Whether it concerns steps."""
        return isinstance(event, InputApplied | StepCommitted | Interrupted | Failed)

    def needs_values(self, event: Event) -> bool:
        """Whether a checkpoint is shown or a task starts."""
        return isinstance(event, InputApplied | StepCommitted)

    def render(self, event: Event, values: Values) -> list[ViewFrame]:
        """Return the frames of ``event``."""
        match event:
            case RunStarted():
                self._run = event
                return []
            case InputApplied(checkpoint_id, CheckpointPosition() as move):
                shown = self._checkpoint(checkpoint_id, move, values) if move.source else []
                return [*shown, *self._starts(checkpoint_id, move, values)]
            case StepCommitted(move=CheckpointPosition() as move):
                ended: list[ViewFrame] = []
                for node, output in event.outputs():
                    ended += self._unannounced(node, move, values)
                    ended += self._ended(node, event.step, move, result=output)
                shown = self._checkpoint(event.checkpoint_id, move, values)
                return [*ended, *shown, *self._starts(event.checkpoint_id, move, values)]
            case Interrupted(move=CheckpointPosition() as move):
                for node in move.next if not self._running else ():  # part of its work is done
                    self._running[node] = task_id(UUID(event.checkpoint_id), node)
                return self._all_ended(move, interrupts=event.interrupts)
            case Failed(move=CheckpointPosition() as move):
                return self._all_ended(move, error=f"{event.error}({event.message!r})")
            case _:
                return []

    def _starts(self, checkpoint_id: str, move: CheckpointPosition, values: Values) -> list[ViewFrame]:
        pieces = []
        for node in move.starts:
            if node == START_NODE:  # reads the input, and is no node of the graph
                continue
            self._running[node] = task_id(UUID(checkpoint_id), node)
            task = {
                "id": self._running[node],
                "name": node,
                "input": values,
                "triggers": [f"branch:to:{node}"],
                "metadata": {"run_id": self._run.run_id, "graph_id": self._run.agent, "run_attempt": self._run.attempt},
            }
            pieces += self._say("tasks", "task", move.step + 1, move.at, task, values)
        return pieces

    def _unannounced(self, node: str, move: CheckpointPosition, values: Values) -> list[ViewFrame]:
        """Start a node that ran before the announced ones: those end without a result, and start again later."""
        if node in self._running or node == START_NODE or not move.parent_id:
            return []
        started = msgspec.structs.replace(move, starts=(node,), step=move.step - 1)
        return [*self._all_ended(started), *self._starts(move.parent_id, started, values)]

    def _all_ended(self, move: CheckpointPosition, **how: Any) -> list[ViewFrame]:
        return [piece for node in list(self._running) for piece in self._ended(node, move.step + 1, move, **how)]

    def _ended(
        self, node: str, step: int, move: CheckpointPosition, *, result: msgspec.Raw = NOTHING, **how: Any
    ) -> list[ViewFrame]:
        id_ = self._running.pop(node, None)
        if id_ is None:
            return []
        task = {"id": id_, "name": node, "error": None, "result": result, "interrupts": [], **how}
        return self._say("tasks", "task_result", step, move.at, task)

    def _checkpoint(self, checkpoint_id: str, move: CheckpointPosition, values: Values) -> list[ViewFrame]:
        parent = parent_of(move, self._run.thread_id)
        payload: dict[str, Any] = {
            "config": self._config(checkpoint_id),
            "parent_config": self._config(parent) if parent else None,
            "values": values,
            "metadata": {"source": move.source, "step": move.step, "parents": {}},
            "next": move.next,
            "tasks": [
                {"id": task_id(UUID(checkpoint_id), node), "name": node, "interrupts": [], "state": None}
                for node in move.next
            ],
        }
        return self._say("checkpoints", "checkpoint", move.step, move.at, payload, values)

    def _config(self, checkpoint_id: str) -> dict[str, Any]:
        run = self._run
        key = {"checkpoint_ns": "", "thread_id": run.thread_id, "checkpoint_id": checkpoint_id}
        return {"configurable": {**key, "run_id": run.run_id, "graph_id": run.agent}}

    def _say(
        self, mode: str, kind: str, step: int, at: str, payload: dict[str, Any], values: Values | None = None
    ) -> list[ViewFrame]:
        pieces = [ViewFrame(mode, mode, payload, values)] if mode in self._modes else []
        if "debug" in self._modes:
            debug = {"step": step, "timestamp": at, "type": kind, "payload": payload}
            pieces.append(ViewFrame("debug", "debug", debug, values))
        return pieces


def parent_of(move: CheckpointPosition, thread_id: str) -> str:
    """Return the id of the checkpoint before ``move``: the origin of the thread before its first one; empty if none."""
    return move.parent_id or (str(origin_id(UUID(thread_id))) if move.step == FIRST_STEP else "")
