"""A streamed answer, put together: pieces go out as they come, the whole message stays."""

from typing import Any

import msgspec

from app.agents.port import RunContext
from app.base.ids import new_id
from app.domain.events import MessageDelta
from app.domain.messages import AIMessage, InvalidToolCall, ToolCall
from app.llm.port import Finished, ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta


class _Call:
    """A tool call while its pieces arrive."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.args: list[str] = []


class Answer:
    """Collects one answer's events and says them at once under a message id of this attempt's own."""

    def __init__(self, context: RunContext, node: str) -> None:
        self.message_id = f"run--{new_id()}"
        self.finished: Finished | None = None
        self._context = context
        self._node = node
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _Call] = {}

    def take(self, event: ModelEvent) -> None:
        """The next event."""
        match event:
            case TextDelta(text):
                self._text.append(text)
                self._say(text=text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
                self._say(reasoning=text)
            case ToolCallDelta():
                self._take_call(event)
            case Finished():
                self.finished = event
                self._say(last=True)

    def _take_call(self, event: ToolCallDelta) -> None:
        call = self._calls.setdefault(event.index, _Call())
        call.id = event.id or call.id
        call.name = event.name or call.name
        call.args.append(event.args)
        self._say(tool_call={"index": event.index, "id": event.id, "name": event.name, "args": event.args})

    def _say(self, **piece: Any) -> None:
        self._context.emit(MessageDelta(message_id=self.message_id, node=self._node, step=self._context.step, **piece))

    def message(self) -> AIMessage:
        """The whole message. Every call has an id of its own, whatever the provider sent."""
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        seen: set[str] = set()
        for index in sorted(self._calls):
            call = self._calls[index]
            id_ = call.id if call.id and call.id not in seen else f"call_{new_id().hex}"
            seen.add(id_)
            text = "".join(call.args)
            args = _object(text)
            if args is None:
                words = "the arguments are not a JSON object"
                invalid.append(InvalidToolCall(name=call.name, args=text, id=id_, error=words))
            else:
                calls.append(ToolCall(name=call.name, args=args, id=id_))
        end = self.finished
        return AIMessage(
            content="".join(self._text),
            id=self.message_id,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            additional_kwargs={"reasoning_content": "".join(self._reasoning)} if self._reasoning else {},
            response_metadata=(
                {"model_name": end.model, "model_provider": end.vendor, "finish_reason": end.reason} if end else {}
            ),
            usage_metadata=end.usage if end else None,
        )


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None
