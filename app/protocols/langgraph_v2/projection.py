"""Project a run onto the events of its thread: https://github.com/langchain-ai/agent-protocol

The number of an event (``seq``) is the run's ordinal in the thread, times 2^32, plus the number of the event in the
run: the same in every process, live and in a replay.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.events import (
    CheckpointPosition,
    Custom,
    Ended,
    Event,
    Failed,
    InputApplied,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.engine.streams.modes.steps import StepsView, parent_of
from app.engine.streams.modes.view import ViewFrame
from app.features.runs.run_views import StoredValues
from app.protocols.langgraph_v2.channels import ROOT, Topic
from app.protocols.langgraph_v2.content import WITHDRAWN, ContentAssembler, encode
from app.protocols.projection import ProjectedFrame
from app.protocols.states import RunState, state_of

RUN_BITS = 32
"""Bits of the number of an event in its run: 2^21 runs of a thread fit into integers that JavaScript holds exactly."""

ATTEMPT_NUMBERS = 1 << 20
"""Numbers per owner of a run: what one has streamed and not committed takes numbers that no replay has."""

LIFECYCLE = {RunState.SUCCESS: "completed", RunState.ASKING: "interrupted"}
"""Lifecycle events by the state that a run ends with: else ``failed``."""

CANCELLED = "The run was cancelled."

_TASKS = ("tasks",)


def first_seq(ordinal: int) -> int:
    """Return the number before the first event of the thread's run number ``ordinal``."""
    return ordinal << RUN_BITS


def position_of(seq: int) -> tuple[int, int]:
    """Return the run's ordinal, and the number in the run, of the event ``seq``."""
    return seq >> RUN_BITS, seq & ((1 << RUN_BITS) - 1)


def graph_of(namespace: tuple[str, ...]) -> str:
    """Return the name of the subgraph with ``namespace``: that of the node that runs it."""
    return namespace[-1].partition(":")[0]


class LateData:
    """Data with the values at ``checkpoint_id``, which each reader loads: the payload itself, or its members."""

    __slots__ = ("_payload", "_tail", "_values", "checkpoint_id")

    def __init__(self, payload: Any, values: StoredValues, tail: bytes) -> None:
        self.checkpoint_id = values.checkpoint_id
        self._payload = payload
        self._values = values
        self._tail = tail

    def frame(self, head: bytes, values: bytes) -> bytes:
        """Return the whole frame that ``head`` begins."""
        if self._payload is self._values:
            return head + values + self._tail
        raw = msgspec.Raw(values)
        filled = {name: raw if value is self._values else value for name, value in self._payload.items()}
        return head + encode(filled) + self._tail


async def _no_calls() -> Mapping[str, Any]:
    return {}


class ThreadProjection:
    """The events of one run, on a thread where it is number ``ordinal``. Implements ``PreparedProjection``.

    ``earlier_calls`` loads the arguments of the tool calls of earlier runs, by id. ``lifecycles``: the newest lifecycle
    event of each namespace.
    """

    stopping = b""
    awaited: frozenset[type] = frozenset({StepCommitted, Failed, Ended})

    def __init__(self, ordinal: int, earlier_calls: Callable[[], Awaitable[Mapping[str, Any]]] = _no_calls) -> None:
        self.lifecycles: dict[tuple[str, ...], str] = {}
        self._earlier_calls = earlier_calls
        self._first = first_seq(ordinal)
        self._number = 0
        self._attempts = 0
        self._time = 0
        self._run_id = self._thread_id = ""
        self._agent = ""
        self._error = ""
        self._checkpoint = ""
        self._asked = False
        self._content = ContentAssembler()
        self._steps = StepsView(_TASKS)
        self._subgraphs: dict[tuple[str, ...], ContentAssembler] = {}

    async def prepare(self, event: Event) -> None:
        """Load the tool calls of earlier runs if ``event`` shows results of them."""
        if not self._content.earlier and self._content.lacks(event):
            self._content.earlier = await self._earlier_calls()

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the events of ``event``."""
        if isinstance(event, MessageDelta | MessageAdded):
            yield from self._message(event)
            return
        move = getattr(event, "move", None)
        if move is not None and move.at:
            self._time = max(self._time, int(datetime.fromisoformat(move.at).timestamp() * 1000))
        match event:
            case RunStarted():
                yield from self._started(event)
            case InputApplied():
                yield from self._checkpointed(event.checkpoint_id, move)
                if event.read:
                    yield self._values(event.checkpoint_id)
                yield from self._tasks(event, event.checkpoint_id)
            case StepCommitted():
                yield from self._committed(event)
            case Custom():
                yield self._custom(ROOT, msgspec.json.decode(event.data))
            case SubgraphOutput():
                yield from self._of_subgraph(event)
            case Interrupted():
                yield from self._interrupted(event)
            case Retracted():
                yield from self._said(event)  # a replay has none of these, so they come before the jump
                yield from self._close_subgraphs("failed", error=WITHDRAWN)
                self._jump()
            case Failed():
                self._error = event.message or event.error
                yield from self._said(event)
                yield from self._tasks(event, self._checkpoint)
            case Ended():
                yield from self._said(event)
                yield from self._ended(event)

    def _frame(self, topic: Topic, data: bytes, late: LateData | None = None, method: str = "") -> ProjectedFrame:
        self._number += 1
        seq = self._first + self._number
        name = (method or topic.channel).encode()
        namespace = encode(topic.namespace) if topic.namespace else b"[]"
        whole = (
            b'event: %b\r\ndata: {"type":"event","event_id":"%d","seq":%d,"method":"%b",'
            b'"params":{"namespace":%b,"timestamp":%d,"data":%b' % (name, seq, seq, name, namespace, self._time, data)
        )
        return ProjectedFrame(self._number, whole + (b"" if late else _tail(seq)), topic, late)

    def _late(self, topic: Topic, payload: Any, values: StoredValues) -> ProjectedFrame:
        return self._frame(topic, b"", LateData(payload, values, _tail(self._first + self._number + 1)))

    def _said(self, event: Event, namespace: tuple[str, ...] = ROOT) -> Iterator[ProjectedFrame]:
        content = self._content if not namespace else self._subgraphs[namespace]
        for channel, data in content.said(event):
            yield self._frame(Topic(channel, namespace), data)

    def _message(self, event: MessageDelta | MessageAdded) -> Iterator[ProjectedFrame]:
        if not event.namespace:
            yield from self._said(event)
            return
        namespace = tuple(event.namespace.split("|"))
        yield from self._open_subgraph(namespace)
        yield from self._said(event, namespace)

    def _jump(self) -> None:
        """Leave out the numbers of what an owner may have streamed and not committed."""
        self._attempts += 1
        self._number = max(self._number, self._attempts * ATTEMPT_NUMBERS)

    def _started(self, event: RunStarted) -> Iterator[ProjectedFrame]:
        if self._run_id:
            self._jump()
            self._steps = StepsView(_TASKS)
        self._run_id, self._thread_id, self._agent = event.run_id, event.thread_id, event.agent
        self._time = self._time or UUID(event.run_id).int >> 80  # UUIDv7 begins with milliseconds
        self._steps.render(event, _NO_VALUES)
        yield self._lifecycle(ROOT, "running", graph_name=event.agent, run_id=event.run_id)
        if event.answered:
            yield self._frame(Topic("input"), encode({"interrupt_ids": event.answered}), method="input.answered")

    def _lifecycle(self, namespace: tuple[str, ...], event: str, **more: Any) -> ProjectedFrame:
        self.lifecycles[namespace] = event
        return self._frame(Topic("lifecycle", namespace), encode({"event": event, **more}))

    def _values(self, checkpoint_id: str) -> ProjectedFrame:
        values = StoredValues(UUID(checkpoint_id))
        return self._late(Topic("values"), values, values)

    def _checkpointed(
        self, checkpoint_id: str, move: CheckpointPosition | None, step: int | None = None
    ) -> Iterator[ProjectedFrame]:
        """Yield the event of a new checkpoint; an input that existed before has none."""
        parent, self._checkpoint = self._checkpoint, checkpoint_id
        if move is not None:
            parent, step = parent_of(move, self._thread_id) or parent, move.step
        if step is None or (move is not None and not move.source):
            return
        checkpoint: dict[str, Any] = {"id": checkpoint_id, "step": step, "source": move.source if move else "loop"}
        if parent:
            checkpoint["parent_id"] = parent
        yield self._frame(Topic("checkpoints"), encode(checkpoint))

    def _tasks(self, event: Event, checkpoint_id: str) -> Iterator[ProjectedFrame]:
        values = StoredValues(UUID(checkpoint_id)) if checkpoint_id else _NO_VALUES
        for frame in self._steps.render(event, values):
            yield self._task(frame, values)

    def _task(self, frame: ViewFrame, values: StoredValues) -> ProjectedFrame:
        if frame.values is None:
            return self._frame(Topic("tasks"), encode(frame.payload))
        return self._late(Topic("tasks"), frame.payload, values)

    def _committed(self, event: StepCommitted) -> Iterator[ProjectedFrame]:
        yield from self._close_subgraphs("completed")
        yield from self._said(event)
        for node, update in event.outputs():
            if bytes(update) != b"{}":
                yield self._frame(Topic("updates"), b'{"node":%b,"values":%b}' % (encode(node), update))
        ended, started = _split(list(self._steps.render(event, values := StoredValues(UUID(event.checkpoint_id)))))
        for frame in ended:
            yield self._task(frame, values)
        yield from self._checkpointed(event.checkpoint_id, event.move, event.step)
        yield self._values(event.checkpoint_id)
        for frame in started:
            yield self._task(frame, values)

    def _custom(self, namespace: tuple[str, ...], value: Any) -> ProjectedFrame:
        """Return the event of a custom value: an object with a name as it is, any other one as its payload."""
        name = value.get("name") if isinstance(value, Mapping) else None
        if isinstance(name, str) and name:
            return self._frame(Topic("custom", namespace, name), encode(value))
        return self._frame(Topic("custom", namespace), encode({"payload": value}))

    def _interrupted(self, event: Interrupted) -> Iterator[ProjectedFrame]:
        self._asked = True
        yield from self._close_subgraphs("interrupted")
        yield from self._tasks(event, event.checkpoint_id)
        for question in msgspec.json.decode(event.interrupts):
            asked = {"interrupt_id": question["id"], "payload": question.get("value"), "value": question.get("value")}
            if question.get("response_schema") is not None:
                asked["response_schema"] = question["response_schema"]
            yield self._frame(Topic("input"), encode(asked), method="input.requested")

    def _of_subgraph(self, event: SubgraphOutput) -> Iterator[ProjectedFrame]:
        if not event.namespace:
            return  # of a superstep that has not ended: shown when it has
        namespace = tuple(event.namespace.split("|"))
        yield from self._open_subgraph(namespace)
        match event.mode:
            case "updates":
                for node, update in msgspec.json.decode(event.data, type=dict[str, msgspec.Raw]).items():
                    said = StepCommitted(step=0, checkpoint_id="", updates=msgspec.Raw(encode({node: update})))
                    yield from self._said(said, namespace)
                    data = b'{"node":%b,"values":%b}' % (encode(node), update)
                    yield self._frame(Topic("updates", namespace), data)
            case "values" | "tasks":
                yield self._frame(Topic(event.mode, namespace), bytes(event.data))
            case "custom":
                yield self._custom(namespace, msgspec.json.decode(event.data))
            case _:
                return

    def _open_subgraph(self, namespace: tuple[str, ...]) -> Iterator[ProjectedFrame]:
        for depth in range(1, len(namespace) + 1):
            path = namespace[:depth]
            if path not in self._subgraphs:
                self._subgraphs[path] = ContentAssembler()
                yield self._lifecycle(path, "started", graph_name=graph_of(path))

    def _close_subgraphs(self, how: str, **more: Any) -> Iterator[ProjectedFrame]:
        for namespace in reversed(list(self._subgraphs)):
            yield from self._said(_NOTHING_MORE, namespace)
            yield self._lifecycle(namespace, how, graph_name=graph_of(namespace), **more)
        self._subgraphs.clear()

    def _ended(self, event: Ended) -> Iterator[ProjectedFrame]:
        state = state_of(event.status, self._asked)
        how = LIFECYCLE.get(state, "failed")
        error = {} if state in LIFECYCLE else {"error": CANCELLED if state is RunState.CANCELLED else self._error}
        yield from self._close_subgraphs(how, **error)
        checkpoint = {"checkpoint": {"id": self._checkpoint}} if self._checkpoint else {}
        yield self._lifecycle(ROOT, how, graph_name=self._agent, run_id=event.run_id, **error, **checkpoint)


_NO_VALUES = StoredValues(UUID(int=0))
_NOTHING_MORE = StepCommitted(step=0, checkpoint_id="", updates=msgspec.Raw(b"{}"))


def _tail(seq: int) -> bytes:
    return b"}}\r\nid: %d\r\n\r\n" % seq


def _split(frames: list[ViewFrame]) -> tuple[list[ViewFrame], list[ViewFrame]]:
    """Split the tasks of a step into those that end and those that start."""
    last = max((at for at, frame in enumerate(frames, 1) if frame.values is None), default=0)
    return frames[:last], frames[last:]
