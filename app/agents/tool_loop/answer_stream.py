"""Assemble a streamed answer: publish its deltas as they arrive, and build the whole message."""

from collections.abc import Callable
from typing import Any

import msgspec

from app.agents.port import RunContext
from app.agents.tool_loop.inputs import read_object
from app.base.ids import new_id
from app.domain.events import MessageDelta
from app.domain.messages import AIMessage, InvalidToolCall, ToolCall
from app.providers.llm.port import Finished, ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta

MAX_ID_LENGTH = 128
MAX_NAME_LENGTH = 128


class _PartialCall(msgspec.Struct):
    """A tool call while its pieces arrive."""

    id: str
    name: str
    args: list[str]


class AnswerAssembler:
    """Collect one answer's events and publish them under a message id that is unique to this attempt.

    Every call gets an id that is unique in the conversation, whatever the provider sent: answers, intents and
    idempotency keys depend on it. ``used_ids`` returns the ids so far; it is called only if there are calls.
    """

    def __init__(self, context: RunContext, node: str, used_ids: Callable[[], set[str]]) -> None:
        self.message_id = context.message_id()
        self._context = context
        self._step = context.step
        self._node = node
        self._used_ids = used_ids
        self._ids: set[str] | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _PartialCall] = {}
        self._finished: Finished | None = None

    def add(self, event: ModelEvent) -> None:
        """Add the next event."""
        if isinstance(event, TextDelta):  # nearly all of them
            self._text.append(event.text)
            self._context.emit(MessageDelta(self.message_id, self._node, self._step, event.text))
        elif isinstance(event, ToolCallDelta):
            self._add_call(event)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
            self._context.emit(MessageDelta(self.message_id, self._node, self._step, reasoning=event.text))
        else:
            self._finished = event
            self._context.emit(MessageDelta(self.message_id, self._node, self._step, last=True))

    def message(self) -> AIMessage:
        """Build the whole message."""
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for _, call in sorted(self._calls.items()):
            text = "".join(call.args)
            try:
                calls.append(ToolCall(name=call.name, args=read_object(text), id=call.id))
            except ValueError as error:
                invalid.append(InvalidToolCall(name=call.name, args=text, id=call.id, error=str(error)))
        end = self._finished
        return AIMessage(
            content="".join(self._text),
            id=self.message_id,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            additional_kwargs={"reasoning_content": "".join(self._reasoning)} if self._reasoning else {},
            response_metadata=_metadata(end) if end else {},
            usage_metadata=end.usage if end else None,
        )

    def _add_call(self, event: ToolCallDelta) -> None:
        call = self._calls.get(event.index)
        piece = {"index": event.index, "id": None, "name": None, "args": event.args}
        if call is None:
            call = self._calls[event.index] = _PartialCall(self._unique_id(event.id), _printable(event.name or ""), [])
            piece.update(id=call.id, name=call.name)
        call.args.append(event.args)
        self._context.emit(MessageDelta(self.message_id, self._node, self._step, tool_call=piece))

    def _unique_id(self, given: str | None) -> str:
        if self._ids is None:
            self._ids = self._used_ids()
        usable = given and given not in self._ids and given.isprintable() and len(given) <= MAX_ID_LENGTH
        own = given if given and usable else f"call_{new_id().hex}"
        self._ids.add(own)
        return own


def _metadata(end: Finished) -> dict[str, Any]:
    metadata: dict[str, Any] = {"model_name": end.model, "model_provider": end.vendor, "finish_reason": end.reason}
    if end.retries:
        metadata["retries"] = end.retries
    return {**metadata, "cached": True} if end.cached else metadata


def answered_by(message: AIMessage) -> str:
    """Return the model that wrote ``message``, as vendor:model."""
    metadata = message.response_metadata
    return f"{metadata.get('model_provider', '')}:{metadata.get('model_name', '')}"


def _printable(name: str) -> str:
    """Strip unprintable characters from a tool name that a model made up."""
    return "".join(filter(str.isprintable, name[:MAX_NAME_LENGTH]))
