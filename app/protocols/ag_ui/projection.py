"""Project a run onto AG-UI's events: https://docs.ag-ui.com/spec/1.0/events

The state is the thread's values without its messages, which have events of their own. A run begins with snapshots of
both, for clients that missed something. What an earlier owner streamed and did not commit is taken back by a snapshot
of the messages; numbers of events then jump, so that they stay the same for every reader.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.base.offload import offload
from app.domain.events import (
    Event,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.domain.messages import Usage
from app.domain.state import MESSAGES
from app.protocols import parts
from app.protocols.ag_ui.json_patch import diff
from app.protocols.ag_ui.messages import reasoning_id, shown, shown_content
from app.protocols.ag_ui.structs import PROTOCOL_VERSION
from app.protocols.ag_ui.subagents import Subagents
from app.protocols.parts import Part, PartAssembler
from app.protocols.projection import FrameNumbers, ProjectedFrame
from app.protocols.questions import calls_of, client_call_id, kind_of, words_of
from app.protocols.states import RunState

ERROR_CODES = {RunState.ERROR: "failed", RunState.TIMEOUT: "timeout"}
"""``code`` of ``RUN_ERROR`` by state, if the run itself names no error."""

EVENT_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,15})")
"""The id of an event: the run's id and the event's number."""

STOPPING = (
    b'retry: 1000\ndata: {"type":"RUN_ERROR","code":"server_stopping",'
    b'"message":"The server is stopping; the run goes on. Send the request again to follow it."}\n\n'
)
"""Ends a stream of a server that stops: without it, clients would take the run for complete."""

REASONS = {"approval": "tool_call", "review": "confirmation", "question": "input_required"}
"""``reason`` of an interrupt by the kind of its question; an approval that names no call is a confirmation."""

APPROVAL_ANSWER = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "editedArgs": {"type": "object", "description": "Arguments to call the tool with instead."},
        "reason": {"type": "string", "description": "Why not, for the model."},
    },
    "required": ["approved"],
}
"""JSON Schema of the answer to an approval; LangChain's ``decisions`` are accepted too."""


class StoredValues(Protocol):
    """The values of a run's thread, as JSON; None if they are no longer kept."""

    async def before(self) -> bytes | None:
        """Return the values that the run started from; None if there were none."""
        ...

    async def at(self, checkpoint_id: UUID) -> bytes | None:
        """Return the values at a checkpoint of the run."""
        ...


_encode = msgspec.json.Encoder().encode


class RunOnWire(NamedTuple):
    """A run as AG-UI names it: ``thread`` and ``run`` are the client's ids. ``given``: the messages that it brings.

    ``hidden``: its input has more than those, which the values show after its first step. ``behind``: the client that
    brings them lacks earlier ones. ``legacy``: the reader is older than 1.0. ``peers``: names of tools that are agents.
    """

    run_id: UUID
    thread: str
    run: str
    parent: str | None = None
    given: Sequence[dict[str, Any]] = ()
    hidden: bool = False
    behind: bool = False
    legacy: bool = False
    peers: frozenset[str] = frozenset()

    @property
    def protocol(self) -> tuple[Any, ...]:
        """What readers that share a projection have in common."""
        return ("ag-ui", self.thread, self.legacy)


class AGUIProjection:
    """Events of one run. Implements ``app.protocols.projection.PreparedProjection``."""

    stopping = STOPPING
    awaited: frozenset[type] = frozenset({RunStarted, StepCommitted, Interrupted, Retracted})

    def __init__(self, run: RunOnWire, stored: StoredValues) -> None:
        self._run = run
        self._stored = stored
        self._head = b"id: %b:" % str(run.run_id).encode()
        self._assembler = PartAssembler(subgraphs=not run.legacy)
        self._numbers = FrameNumbers()
        self._begun = False
        self._steps: dict[str, None] = {}
        self._subagents = Subagents()
        self._texts: dict[str, str] = {}
        self._openings: dict[str, int] = {}
        self._calls: dict[str, str] = {}
        self._checkpoint: UUID | None = None
        self._hidden = run.hidden
        self._restated: list[bytes] = []
        self._state: dict[str, Any] = {}
        self._questions: list[dict[str, Any]] = []
        self._failure: parts.RunFailed | None = None

    async def prepare(self, event: Event) -> None:
        """Load the thread's values if ``event`` needs them."""
        match event:
            case RunStarted() if not self._begun:
                await self._load(snapshot=True, messages=True)
            case StepCommitted():
                self._checkpoint = UUID(event.checkpoint_id)
                if self._hidden or _changes_state(event):
                    await self._load(snapshot=False, messages=self._hidden)
                self._hidden = False
            case Interrupted():
                self._checkpoint = UUID(event.checkpoint_id)
                await self._load(snapshot=True, messages=True)
            case Retracted():
                await self._load(snapshot=False, messages=True)

    async def _load(self, *, snapshot: bool, messages: bool) -> None:
        """Load the values at the newest checkpoint; until the first one of the run, the input is still to come."""
        if self._checkpoint is None:
            values, given = await self._stored.before(), self._run.given
        else:
            values, given = await self._stored.at(self._checkpoint), ()
            if values is None:
                return
        values = values or b"{}"
        self._restated = await offload(len(values), self._restate, values, messages, snapshot, given)

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the frames of ``event``."""
        if isinstance(event, MessageDelta):
            if event.namespace:
                yield from self._subgraph(event.namespace, event.message_id)
            elif event.node not in self._steps:
                yield self._frame(self._step_begins(event.node))
        elif isinstance(event, SubgraphOutput | MessageAdded):
            if event.namespace:
                yield from self._subgraph(event.namespace, _id_in(event))
        elif isinstance(event, StepCommitted):
            for node, _ in event.outputs():
                if node and node not in self._steps:
                    yield self._frame(self._step_begins(node))
        for part in self._assembler.parts(event):
            if isinstance(part, parts.TextDelta):  # what most parts are
                yield self._bytes(
                    b'{"type":"TEXT_MESSAGE_CONTENT","messageId":%b,"delta":%b%b}'
                    % (
                        _encode(self._texts[part.message_id]),
                        _encode(part.text),
                        self._subagents.tail_of(part.message_id),
                    )
                )
                continue
            owner = self._owner_of(part)
            for found in self._events(part):
                yield self._frame(found if owner is None else {**found, "subagentRunId": owner})
        if isinstance(event, StepCommitted):
            yield from map(self._frame, self._subagents.finish())
            yield from map(self._frame, self._steps_end())
        restated, self._restated = self._restated, []
        yield from map(self._bytes, restated)

    def _subgraph(self, namespace: str, message_id: str | None) -> Iterator[ProjectedFrame]:
        """Yield the events that begin a subgraph; clients from before 1.0 know none."""
        if not self._run.legacy:
            yield from map(self._frame, self._subagents.begin(namespace, message_id))

    def _owner_of(self, part: Part) -> str | None:
        """Return the subgraph that a part of a message belongs to."""
        match part:
            case parts.ToolCallDelta():
                return self._subagents.owner_of(self._calls.get(part.call_id, ""))
            case (
                parts.TextStart()
                | parts.TextEnd()
                | parts.ReasoningStart()
                | parts.ReasoningDelta()
                | parts.ReasoningEnd()
                | parts.ToolCallStart()
                | parts.ToolCallEnd()
                | parts.ToolResult()
            ):
                return self._subagents.owner_of(part.message_id)
            case _:
                return None

    def _frame(self, event: dict[str, Any]) -> ProjectedFrame:
        return self._bytes(_encode(event))

    def _bytes(self, event: bytes) -> ProjectedFrame:
        number = self._numbers.next()
        return ProjectedFrame(number, self._head + b"%d\ndata: %b\n\n" % (number, event))

    def _step_begins(self, node: str) -> dict[str, Any]:
        self._steps[node] = None
        return {"type": "STEP_STARTED", "stepName": node}

    def _steps_end(self) -> Iterator[dict[str, Any]]:
        for node in self._steps:
            yield {"type": "STEP_FINISHED", "stepName": node}
        self._steps.clear()

    def _restate(self, stored: bytes, messages: bool, snapshot: bool, given: Sequence[dict[str, Any]]) -> list[bytes]:
        """Return the events that bring a client to the ``stored`` values, as JSON; maybe in a thread.

        By a ``snapshot`` or by what has changed; with a snapshot of ``messages``, if wanted, and of those ``given``.
        """
        values, said = _split(stored, messages)
        events = []
        whole = _encode({"type": "STATE_SNAPSHOT", "snapshot": values})
        if snapshot:
            events.append(whole)
        elif operations := list(diff(self._state, values)):
            events.append(min(_encode({"type": "STATE_DELTA", "delta": operations}), whole, key=len))
        self._state = values
        if said is not None:
            found = shown(said)
            known = {message["id"] for message in found}
            if given and self._run.behind:  # clients put what they lack behind what they have: take that away first
                events.append(_encode({"type": "MESSAGES_SNAPSHOT", "messages": found}))
            found = found + [message for message in given if message["id"] not in known]
            events.append(_encode({"type": "MESSAGES_SNAPSHOT", "messages": found}))
        return events

    def _events(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case parts.RunBegins():
                yield from self._begin()
            case parts.MessagesRetracted():
                yield from self._retracted(part)
            case parts.CustomValue():
                yield {"type": "CUSTOM", "name": "agent-service:custom", "value": part.data}
            case parts.QuestionsAsked():
                self._questions = part.questions
            case parts.RunFailed():
                self._failure = part
            case parts.RunEnds():
                yield from self._end(part)
            case parts.ToolCallStart() | parts.ToolCallDelta() | parts.ToolCallEnd() | parts.ToolResult():
                yield from self._tool_call(part)
            case _:
                yield from self._content(part)

    def _begin(self) -> Iterator[dict[str, Any]]:
        if not self._begun:
            self._begun = True
            yield run_started(self._run)

    def _retracted(self, part: parts.MessagesRetracted) -> Iterator[dict[str, Any]]:
        yield from self._subagents.suspend()
        yield from self._steps_end()
        self._numbers.retracted(part.epoch)
        self._calls = {call: message for call, message in self._calls.items() if message not in part.message_ids}

    def _content(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case parts.TextStart():
                wire = self._opened(part.message_id)
                yield {"type": "TEXT_MESSAGE_START", "messageId": wire, "role": "assistant"}
            case parts.TextEnd():
                yield {"type": "TEXT_MESSAGE_END", "messageId": self._texts.pop(part.message_id)}
            case parts.ReasoningStart():
                wire = self._opened(reasoning_id(part.message_id))
                yield {"type": "REASONING_START", "messageId": wire}
                yield {"type": "REASONING_MESSAGE_START", "messageId": wire, "role": "reasoning"}
            case parts.ReasoningDelta():
                wire = self._texts[reasoning_id(part.message_id)]
                yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": wire, "delta": part.text}
            case parts.ReasoningEnd():
                wire = self._texts.pop(reasoning_id(part.message_id))
                yield {"type": "REASONING_MESSAGE_END", "messageId": wire}
                yield {"type": "REASONING_END", "messageId": wire}

    def _opened(self, message_id: str) -> str:
        """Return the id on the wire of a text that begins: ids are used once, also if a message says two texts."""
        count = self._openings[message_id] = self._openings.get(message_id, 0) + 1
        wire = self._texts[message_id] = message_id if count == 1 else f"{message_id}-{count}"
        return wire

    def _tool_call(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case parts.ToolCallStart():
                self._calls[part.call_id] = part.message_id
                yield {
                    "type": "TOOL_CALL_START",
                    "toolCallId": part.call_id,
                    "toolCallName": part.name,
                    "parentMessageId": part.message_id,
                }
            case parts.ToolCallDelta():
                yield {"type": "TOOL_CALL_ARGS", "toolCallId": part.call_id, "delta": part.args}
            case parts.ToolCallEnd():
                if not part.args:
                    yield {"type": "TOOL_CALL_ARGS", "toolCallId": part.call_id, "delta": "{}"}
                yield {"type": "TOOL_CALL_END", "toolCallId": part.call_id}
                if part.name in self._run.peers:
                    yield self._subagents.call(part.name, part.call_id, part.message_id)
            case parts.ToolResult():
                self._calls.pop(part.call_id, None)
                if part.name in self._run.peers:
                    yield from self._subagents.returned(part)
                yield {
                    "type": "TOOL_CALL_RESULT",
                    "messageId": part.message_id,
                    "toolCallId": part.call_id,
                    "content": shown_content(part.content),
                    "role": "tool",
                }

    def _end(self, part: parts.RunEnds) -> Iterator[dict[str, Any]]:
        yield from self._begin()
        ending: dict[str, Any] = {}
        match part.state:
            case RunState.ERROR | RunState.TIMEOUT:
                failure = self._failure
                ending = run_error(
                    "The run did not end in time." if failure is None else failure.message,
                    ERROR_CODES[part.state] if failure is None else failure.error,
                )
                yield from self._subagents.fail(ending["message"], ending["code"])
            case RunState.CANCELLED:
                ending = run_finished(self._run, {"type": "cancelled"})
                yield from self._subagents.fail("The run was cancelled.", "cancelled")
            case _:
                yield from self._subagents.suspend(self._questions)
                ending = run_finished(self._run, outcome_of(self._questions, list(self._calls), self._run))
        yield from self._steps_end()
        if part.usage.total_tokens:
            ending["usage"] = [usage_of(part.usage)]
        yield ending


def _id_in(event: SubgraphOutput | MessageAdded) -> str | None:
    """Return the id of the message of an event, if it has one."""
    if isinstance(event, SubgraphOutput):
        return None
    message = msgspec.json.decode(event.message)
    return str(message.get("id") or "") if isinstance(message, dict) else None


def _split(values: bytes, messages: bool) -> tuple[dict[str, Any], Sequence[Any] | None]:
    """Return the values of a thread without its messages, and those if they are wanted: they may be long."""
    members = msgspec.json.decode(values, type=dict[str, msgspec.Raw])
    stored = members.pop(MESSAGES, msgspec.Raw(b"[]"))
    found = msgspec.json.decode(stored) if messages else None
    others = {name: msgspec.json.decode(value) for name, value in members.items()}
    return others, found if found is None or isinstance(found, list) else ()


def _changes_state(event: StepCommitted) -> bool:
    """Whether a step may have changed more than messages; its output is not known if it was too large for the log."""
    outputs = event.outputs()
    if len(outputs) == 1 and bytes(outputs[0][1]) == b"{}":
        return True
    for _, update in outputs:
        try:
            channels = msgspec.json.decode(update, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            continue  # a node without an update of channels
        if channels.keys() - {MESSAGES}:
            return True
    return False


def frame(run_id: UUID, number: int, event: dict[str, Any]) -> bytes:
    """Return the frame of the event ``number`` of a run."""
    return b"id: %b:%d\ndata: %b\n\n" % (str(run_id).encode(), number, _encode(event))


def run_started(run: RunOnWire) -> dict[str, Any]:
    """Return the first event of a run."""
    event: dict[str, Any] = {"type": "RUN_STARTED", "threadId": run.thread, "runId": run.run}
    if not run.legacy:
        event["protocolVersion"] = PROTOCOL_VERSION
    if run.parent:
        event["parentRunId"] = run.parent
    return event


def run_finished(run: RunOnWire, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the last event of a run that did not fail."""
    event: dict[str, Any] = {"type": "RUN_FINISHED", "threadId": run.thread, "runId": run.run}
    if not (run.legacy and outcome["type"] == "cancelled"):  # clients from before 1.0 know no such outcome
        event["outcome"] = outcome
    return event


def run_error(message: str, code: str) -> dict[str, Any]:
    """Return the last event of a run that failed, or the only one of a request that was refused."""
    return {"type": "RUN_ERROR", "message": message, "code": code}


def outcome_of(questions: Sequence[dict[str, Any]], pending: Sequence[str], run: RunOnWire) -> dict[str, Any]:
    """Return the outcome of a run with open ``questions``, or with ``pending`` calls of the application's tools.

    Such a call is no interrupt: its result is a message of the next request.
    """
    interrupts = [_interrupt(question) for question in questions if client_call_id(question.get("value")) is None]
    if interrupts:
        return {"type": "interrupt", "interrupts": interrupts}
    return {"type": "success", **({"pendingToolCallIds": list(pending)} if pending and not run.legacy else {})}


def _interrupt(question: dict[str, Any]) -> dict[str, Any]:
    value = question.get("value")
    kind = kind_of(value)
    call_id = next((call.call_id for call in calls_of(value)), "")
    reason = REASONS["review"] if kind == "approval" and not call_id else REASONS[kind]
    found: dict[str, Any] = {"id": question["id"], "reason": reason, "metadata": {"value": value}}
    if message := words_of(value):
        found["message"] = message
    if call_id:
        found["toolCallId"] = call_id
    schema = question.get("response_schema")
    if not isinstance(schema, dict) and kind == "approval":
        schema = APPROVAL_ANSWER
    if isinstance(schema, dict):
        found["responseSchema"] = schema
    return found


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return token counts in AG-UI's names."""
    total = usage.input_tokens + usage.output_tokens
    return {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens, "totalTokens": total}
