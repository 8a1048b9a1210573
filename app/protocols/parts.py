"""The output of a run, piece by piece: the one model that every protocol's projection reads.

``PartAssembler`` turns a run's events into parts: texts, reasoning and tool calls with a start, chunks and an end; tool
results; steps; questions; the end. It is pure, so a replay gives the parts of the live stream. A run whose stream modes
show no chunks gives whole messages: a start, one chunk, an end.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from app.domain.events import (
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
from app.domain.messages import Usage
from app.protocols.states import RunState, state_of


class Part(msgspec.Struct, frozen=True):
    """A piece of a run's output."""


class RunBegins(Part, frozen=True):
    """An owner executes the run; ``attempt`` counts owners from 1."""

    run_id: str
    attempt: int


class TextStart(Part, frozen=True):
    """The text of a message begins."""

    message_id: str


class TextDelta(Part, frozen=True):
    """A chunk of text."""

    message_id: str
    text: str


class TextEnd(Part, frozen=True):
    """The text ends; ``text`` is all of it."""

    message_id: str
    text: str


class ReasoningStart(Part, frozen=True):
    """A message begins to show the model's reasoning."""

    message_id: str


class ReasoningDelta(Part, frozen=True):
    """A chunk of reasoning."""

    message_id: str
    text: str


class ReasoningEnd(Part, frozen=True):
    """The reasoning ends; ``text`` is all of it."""

    message_id: str
    text: str


class ToolCallStart(Part, frozen=True):
    """The model begins to call the tool ``name``."""

    message_id: str
    call_id: str
    name: str


class ToolCallDelta(Part, frozen=True):
    """A chunk of the JSON text of the arguments."""

    call_id: str
    args: str


class ToolCallEnd(Part, frozen=True):
    """The call is complete; ``args`` is the JSON text of its arguments."""

    message_id: str
    call_id: str
    name: str
    args: str


class ToolResult(Part, frozen=True):
    """The result of a tool call: text or content blocks."""

    message_id: str
    call_id: str
    name: str
    content: Any
    failed: bool


class MessageDone(Part, frozen=True):
    """A model's message is committed: the whole ``message``, as clients of LangGraph read it, and its token usage."""

    message_id: str
    message: dict[str, Any]
    usage: Usage | None


class MessagesRetracted(Part, frozen=True):
    """What an earlier owner streamed for a step did not commit; the run says it again, under other ids.

    ``message_ids``: the messages of which parts were sent. ``epoch``: that of the owner, if a replay has none of them;
    it has this part too. 0 if a replay has all of them.
    """

    message_ids: tuple[str, ...]
    epoch: int = 0


class CustomValue(Part, frozen=True):
    """A value that a tool or a function agent sent to its clients, as JSON."""

    data: msgspec.Raw


class InputTaken(Part, frozen=True):
    """The input is part of the thread's state at ``checkpoint_id``."""

    checkpoint_id: str


class StepDone(Part, frozen=True):
    """A step is durable; ``update`` maps channels to new values, empty if it was too large for the event log."""

    step: int
    node: str
    checkpoint_id: str
    update: dict[str, Any]


class QuestionsAsked(Part, frozen=True):
    """The run waits for people: ``questions`` are ``{"id", "value", "response_schema"}``."""

    checkpoint_id: str
    questions: list[dict[str, Any]]


class RunFailed(Part, frozen=True):
    """The run failed: the error's name and a sentence."""

    error: str
    message: str


class RunEnds(Part, frozen=True):
    """The last part of every run. ``usage``: the tokens of all its messages."""

    run_id: str
    state: RunState
    usage: Usage


class _OpenCall:
    __slots__ = ("args", "call_id", "name")

    def __init__(self, call_id: str, name: str) -> None:
        self.call_id = call_id
        self.name = name
        self.args: list[str] = []


class _OpenMessage:
    """A message in progress: the texts and calls that have begun and not ended."""

    __slots__ = ("calls", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] | None = None
        self.reasoning: list[str] | None = None
        self.calls: dict[int, _OpenCall] = {}


def _updates_in(event: StepCommitted) -> Iterator[dict[str, Any]]:
    """Yield what each node of the step has changed."""
    for updates in map(msgspec.json.decode, (event.updates, *event.others)):
        yield from [update for update in updates.values() if isinstance(update, dict)]


class PartAssembler:
    """Turns the events of one run, in order, into parts.

    ``subgraphs``: with what subgraphs say, if the run streams it. Otherwise every run says the same, whether it does or
    not: what a subgraph adds to the agent's messages comes with the step that calls it.
    """

    def __init__(self, *, subgraphs: bool = False) -> None:
        self._subgraphs = subgraphs
        self._open: dict[str, _OpenMessage] = {}
        self._said: set[str] = set()
        self._asked = False
        self._usage = Usage()

    def parts(self, event: Event) -> Iterable[Part]:
        """Return the parts of ``event``."""
        match event:
            case MessageDelta():
                message = self._open.get(event.message_id)
                if message is not None and message.text is not None and _is_text_only(event):
                    message.text.append(event.text)  # what most events are
                    return (TextDelta(event.message_id, event.text),)
                return self._chunk(event) if self._subgraphs or not event.namespace else ()
            case RunStarted():
                return (RunBegins(event.run_id, event.attempt),)
            case InputApplied():
                return (InputTaken(event.checkpoint_id),)
            case MessageAdded():
                shows = self._subgraphs or not event.namespace
                return self._message(msgspec.json.decode(event.message)) if shows else ()
            case Custom():
                return (CustomValue(event.data),)
            case StepCommitted():
                return self._step(event)
            case SubgraphOutput():
                return ()
            case Interrupted():
                self._asked = True
                return (QuestionsAsked(event.checkpoint_id, msgspec.json.decode(event.interrupts)),)
            case Retracted():
                return self._retracted(event)
            case Failed():
                return (*self._close_all(), RunFailed(event.error, event.message))
            case Ended():
                return (*self._close_all(), RunEnds(event.run_id, state_of(event.status, self._asked), self._usage))

    def _chunk(self, event: MessageDelta) -> Iterator[Part]:
        message_id = event.message_id
        message = self._open.get(message_id)
        if message is None:
            if event.last and not (event.text or event.reasoning or event.tool_call):
                return
            message = self._open[message_id] = _OpenMessage()
            self._said.add(message_id)
        if event.reasoning:
            if message.reasoning is None:
                message.reasoning = []
                yield ReasoningStart(message_id)
            message.reasoning.append(event.reasoning)
            yield ReasoningDelta(message_id, event.reasoning)
        if event.text:
            yield from _end_reasoning(message_id, message)
            if message.text is None:
                message.text = []
                yield TextStart(message_id)
            message.text.append(event.text)
            yield TextDelta(message_id, event.text)
        if event.tool_call is not None:
            yield from self._call_chunk(message_id, message, event.tool_call)
        if event.last:
            yield from self._close(message_id)

    def _call_chunk(self, message_id: str, message: _OpenMessage, piece: dict[str, Any]) -> Iterator[Part]:
        yield from _end_reasoning(message_id, message)
        yield from _end_text(message_id, message)
        index = piece.get("index") or 0
        call = message.calls.get(index)
        if call is None:
            call = message.calls[index] = _OpenCall(piece.get("id") or f"{message_id}-{index}", piece.get("name") or "")
            yield ToolCallStart(message_id, call.call_id, call.name)
        if args := piece.get("args"):
            call.args.append(args)
            yield ToolCallDelta(call.call_id, args)

    def _step(self, event: StepCommitted) -> Iterator[Part]:
        changed: dict[str, Any] = {}
        for update in _updates_in(event):
            messages = update.get("messages")
            for message in messages if isinstance(messages, list) else [messages]:
                if isinstance(message, dict):
                    yield from self._message(message, committed=True)
            changed |= update
        yield from self._close_all()
        yield StepDone(event.step, event.node, event.checkpoint_id, changed)

    def _message(self, message: dict[str, Any], *, committed: bool = False) -> Iterator[Part]:
        message_id = str(message.get("id") or "")
        kind = str(message.get("type"))
        if kind == "tool":
            if message_id not in self._said:
                self._said.add(message_id)
                failed = message.get("status") == "error"
                call_id, name = str(message.get("tool_call_id") or ""), str(message.get("name") or "")
                yield ToolResult(message_id, call_id, name, message.get("content"), failed)
        elif kind in {"ai", "AIMessageChunk"}:
            if message_id in self._said:
                yield from self._close(message_id)
            else:
                self._said.add(message_id)
                yield from _whole(message_id, message)
            if committed:
                usage = _usage_in(message)
                if usage is not None:
                    self._usage = self._usage.plus(usage)
                yield MessageDone(message_id, message, usage)

    def _retracted(self, event: Retracted) -> Iterator[Part]:
        gone = tuple(one for one in (*event.message_ids, *self._open) if one in self._said)
        for message_id in gone:
            yield from self._close(message_id)
        yield MessagesRetracted(tuple(dict.fromkeys(gone)), event.epoch)

    def _close(self, message_id: str) -> Iterator[Part]:
        message = self._open.pop(message_id, None)
        if message is None:
            return
        yield from _end_reasoning(message_id, message)
        yield from _end_text(message_id, message)
        for call in message.calls.values():
            yield ToolCallEnd(message_id, call.call_id, call.name, "".join(call.args))

    def _close_all(self) -> Iterator[Part]:
        for message_id in list(self._open):
            yield from self._close(message_id)


def _is_text_only(event: MessageDelta) -> bool:
    return bool(event.text) and not event.reasoning and event.tool_call is None and not event.last


def _end_reasoning(message_id: str, message: _OpenMessage) -> Iterator[Part]:
    if message.reasoning is not None:
        yield ReasoningEnd(message_id, "".join(message.reasoning))
        message.reasoning = None


def _end_text(message_id: str, message: _OpenMessage) -> Iterator[Part]:
    if message.text is not None:
        yield TextEnd(message_id, "".join(message.text))
        message.text = None


def _whole(message_id: str, message: dict[str, Any]) -> Iterator[Part]:
    """Return the parts of a message that was not streamed in chunks."""
    if reasoning := reasoning_in(message):
        yield ReasoningStart(message_id)
        yield ReasoningDelta(message_id, reasoning)
        yield ReasoningEnd(message_id, reasoning)
    if text := text_in(message.get("content")):
        yield TextStart(message_id)
        yield TextDelta(message_id, text)
        yield TextEnd(message_id, text)
    for call_id, name, args in calls_in(message):
        yield ToolCallStart(message_id, call_id, name)
        yield ToolCallDelta(call_id, args)
        yield ToolCallEnd(message_id, call_id, name, args)


def _usage_in(message: Mapping[str, Any]) -> Usage | None:
    """Return the token usage of a message; None if it has none, or a graph's code wrote what is none."""
    try:
        return msgspec.convert(message.get("usage_metadata"), Usage | None)
    except msgspec.ValidationError:
        return None


def reasoning_in(message: Mapping[str, Any]) -> str:
    """Return the reasoning that a message shows, as clients of LangGraph read it; empty if it has none."""
    about = message.get("additional_kwargs")
    reasoning = about.get("reasoning_content") if isinstance(about, dict) else None
    return reasoning if isinstance(reasoning, str) else ""


class SaidCall(NamedTuple):
    """A tool call of a message; ``args`` is the JSON text of its arguments."""

    call_id: str
    name: str
    args: str


def calls_in(message: Mapping[str, Any]) -> Iterator[SaidCall]:
    """Yield the tool calls of a message, as clients of LangGraph read it."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            args = msgspec.json.encode(call.get("args") or {}).decode()
            yield SaidCall(str(call.get("id") or ""), str(call.get("name") or ""), args)


def text_in(content: Any) -> str:
    """Return the text of a message's content as clients of LangGraph read it: text, or a list of content blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else ()
    texts = [one if isinstance(one, str) else one.get("text") for one in blocks if isinstance(one, str | dict)]
    return "".join(text for text in texts if isinstance(text, str))
