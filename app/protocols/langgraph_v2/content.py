"""Messages as content blocks with a start, deltas and an end, and tool calls with theirs, in one namespace."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from app.domain.events import Ended, Event, Failed, MessageAdded, MessageDelta, Retracted, StepCommitted
from app.domain.messages import Usage
from app.protocols import parts
from app.protocols.parts import Part, PartAssembler

WITHDRAWN = "This was not stored before its server stopped: it begins again."

MESSAGES = "messages"
TOOLS = "tools"

encode = msgspec.json.Encoder().encode


class _OpenMessage:
    """A message in progress: its id as JSON, and the index of the last block of each kind or call."""

    __slots__ = ("blocks", "count", "id")

    def __init__(self, message_id: str) -> None:
        self.id = encode(message_id)
        self.blocks: dict[str, int] = {}
        self.count = 0

    def begin(self, block: str) -> int:
        self.blocks[block] = self.count
        self.count += 1
        return self.blocks[block]


class _Result(msgspec.Struct):
    """The result of a tool call, as far as it names the call."""

    tool_call_id: str | None = None


def calls_of(values: bytes) -> dict[str, Any]:
    """Return the arguments of the tool calls in a thread's values, by id."""
    messages = msgspec.json.decode(values).get("messages")
    found = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    return {
        str(call.get("id")): call.get("args")
        for message in found
        for call in message.get("tool_calls") or ()
        if isinstance(call, dict)
    }


class ContentAssembler:
    """Turns the events of one namespace of a run, in order, into data of the channels messages and tools, as JSON.

    Every event of a message has its ``id``, as messages may be interleaved. A tool call starts when the answer of the
    model that makes it is committed. A message that no model has streamed is shown if it has a text.

    The result of a call that an earlier run made waits for its step to be committed, which may have the call as a
    person has edited it. ``earlier``: the arguments of such calls, by id.
    """

    def __init__(self) -> None:
        self.earlier: Mapping[str, Any] = {}
        self._results: list[MessageAdded] = []  # of calls that this run has not shown
        self._parts = PartAssembler()
        self._open: dict[str, _OpenMessage] = {}
        self._calls: dict[str, str] = {}  # message and name of each call that is being streamed
        self._called: set[str] = set()
        self._made: dict[str, parts.ToolCallEnd] = {}  # calls that have not started

    def lacks(self, event: Event) -> bool:
        """Whether ``event`` shows results of calls that this run has not made."""
        if not isinstance(event, StepCommitted):
            return bool(self._results)
        made = {*self._called, *self._made}
        for update in (event.updates, *event.others):
            if b'"tool_call_id"' not in bytes(update):
                continue
            for channels in msgspec.json.decode(update, type=dict[str, Any]).values():
                messages = channels.get("messages") if isinstance(channels, dict) else None
                for message in messages if isinstance(messages, list) else [messages]:
                    if isinstance(message, dict):
                        made.update(call.call_id for call in parts.calls_in(message))
                        if message.get("tool_call_id", "") not in {"", *made}:
                            return True
        return False

    def said(self, event: Event) -> Iterator[tuple[str, bytes]]:
        """Yield what ``event`` says, as (channel, data)."""
        if isinstance(event, MessageAdded) and self._is_of_another_run(event):
            self._results.append(event)
            return
        if isinstance(event, Failed | Ended):
            yield from self._held()
        yield from self._said(event)
        if isinstance(event, StepCommitted):
            yield from self._held()
        elif isinstance(event, Retracted):
            self._results.clear()

    def _is_of_another_run(self, event: MessageAdded) -> bool:
        if b'"tool_call_id"' not in bytes(event.message):
            return False
        call_id = msgspec.json.decode(event.message, type=_Result).tool_call_id
        return bool(call_id) and call_id not in self._called and call_id not in self._made

    def _held(self) -> Iterator[tuple[str, bytes]]:
        results, self._results = self._results, []
        for result in results:
            yield from self._said(result)

    def _said(self, event: Event) -> Iterator[tuple[str, bytes]]:
        node = getattr(event, "node", "")
        streamed = isinstance(event, MessageDelta)
        for part in self._parts.parts(event):
            if isinstance(part, parts.TextDelta) and (message := self._open.get(part.message_id)) is not None:
                yield MESSAGES, _text_delta(message, encode(part.text))  # what most parts are
            else:
                for channel, data in self._of_part(part, node, streamed):
                    yield channel, encode(data)

    def _of_part(self, part: Part, node: str, streamed: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        match part:
            case parts.TextStart() | parts.ReasoningStart() | parts.ToolCallStart():
                if part.message_id not in self._open:
                    if isinstance(part, parts.ToolCallStart) and not streamed:
                        return
                    self._open[part.message_id] = _OpenMessage(part.message_id)
                    yield MESSAGES, _start(part.message_id, node)
                yield MESSAGES, self._block_start(part)
            case parts.ReasoningDelta() | parts.TextEnd() | parts.ReasoningEnd():
                if (data := self._block(part)) is not None:
                    yield MESSAGES, data
            case parts.ToolCallDelta() | parts.ToolCallEnd():
                if isinstance(part, parts.ToolCallEnd):
                    self._made[part.call_id] = part
                if (data := self._call_block(part)) is not None:
                    yield MESSAGES, data
            case parts.MessageDone():
                if self._open.pop(part.message_id, None) is not None:
                    yield MESSAGES, _finish(part.message_id, part.usage)
                yield from self._calls_of(part.message)
            case parts.ToolResult():
                yield from self._result(part)
            case parts.MessagesRetracted():
                for message_id in part.message_ids:
                    if self._open.pop(message_id, None) is not None:
                        error = {"event": "error", "id": message_id, "message": WITHDRAWN, "code": "withdrawn"}
                        yield MESSAGES, error
            case parts.StepDone() | parts.RunFailed() | parts.RunEnds():
                for message_id in self._open:
                    yield MESSAGES, _finish(message_id, None)
                self._open.clear()
            case _:
                return

    def _block_start(self, part: parts.TextStart | parts.ReasoningStart | parts.ToolCallStart) -> dict[str, Any]:
        message = self._open[part.message_id]
        content: dict[str, Any]
        if isinstance(part, parts.TextStart):
            index, content = message.begin("text"), {"type": "text", "text": ""}
        elif isinstance(part, parts.ReasoningStart):
            index, content = message.begin("reasoning"), {"type": "reasoning", "reasoning": ""}
        else:
            self._calls[part.call_id] = part.message_id
            index = message.begin(part.call_id)
            content = {"type": "tool_call_chunk", "id": part.call_id, "name": part.name, "args": ""}
        return {"event": "content-block-start", "id": part.message_id, "index": index, "content": content}

    def _block(self, part: parts.ReasoningDelta | parts.TextEnd | parts.ReasoningEnd) -> dict[str, Any] | None:
        message = self._open.get(part.message_id)
        if message is None:
            return None
        about: dict[str, Any] = {"event": "content-block-finish", "id": part.message_id}
        match part:
            case parts.ReasoningDelta():
                delta = {"type": "reasoning-delta", "reasoning": part.text}
                return {
                    **about,
                    "event": "content-block-delta",
                    "index": message.blocks["reasoning"],
                    "delta": delta,
                }
            case parts.TextEnd():
                return {**about, "index": message.blocks["text"], "content": {"type": "text", "text": part.text}}
            case parts.ReasoningEnd():
                content = {"type": "reasoning", "reasoning": part.text}
                return {**about, "index": message.blocks["reasoning"], "content": content}

    def _call_block(self, part: parts.ToolCallDelta | parts.ToolCallEnd) -> dict[str, Any] | None:
        message_id = self._calls.get(part.call_id, "")
        message = self._open.get(message_id)
        if message is None:
            return None
        about: dict[str, Any] = {"id": message_id, "index": message.blocks[part.call_id]}
        if isinstance(part, parts.ToolCallDelta):
            return {"event": "content-block-delta", **about, "delta": {"type": "tool-call-delta", "args": part.args}}
        del self._calls[part.call_id]
        return {"event": "content-block-finish", **about, "content": _call(part)}

    def _calls_of(self, message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for call in message.get("tool_calls") or ():
            call_id = str(call.get("id") or "")
            if call_id and call_id not in self._called:
                self._called.add(call_id)
                yield TOOLS, _tool("tool-started", call_id, tool_name=str(call.get("name") or ""), input=call["args"])

    def _result(self, part: parts.ToolResult) -> Iterator[tuple[str, dict[str, Any]]]:
        if part.call_id not in self._called:  # made in the same step, or by an earlier run, which asked a person first
            self._called.add(part.call_id)
            made = self._made.get(part.call_id)
            given = {} if made is None else {"input": _call(made)["args"]}
            if made is None and part.call_id in self.earlier:
                given = {"input": self.earlier[part.call_id]}
            yield (
                TOOLS,
                _tool("tool-started", part.call_id, tool_name=part.name or (made.name if made else ""), **given),
            )
        if part.failed:
            yield TOOLS, _tool("tool-error", part.call_id, message=parts.text_in(part.content) or "The tool failed.")
            return
        output = {
            "type": "tool",
            "id": part.message_id,
            "name": part.name,
            "tool_call_id": part.call_id,
            "content": part.content,
            "status": "success",
        }
        yield TOOLS, _tool("tool-finished", part.call_id, output=output)


def _text_delta(message: _OpenMessage, text: bytes) -> bytes:
    return b'{"event":"content-block-delta","id":%b,"index":%d,"delta":{"type":"text-delta","text":%b}}' % (
        message.id,
        message.blocks["text"],
        text,
    )


def _start(message_id: str, node: str) -> dict[str, Any]:
    return {"event": "message-start", "role": "ai", "id": message_id, "metadata": {"langgraph_node": node}}


def _finish(message_id: str, usage: Usage | None) -> dict[str, Any]:
    finish: dict[str, Any] = {"event": "message-finish", "id": message_id}
    if usage is not None:
        finish["usage"] = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        }
    return finish


def _call(part: parts.ToolCallEnd) -> dict[str, Any]:
    call = {"type": "tool_call", "id": part.call_id, "name": part.name}
    try:
        return {**call, "args": msgspec.json.decode(part.args or "{}", type=dict[str, Any])}
    except msgspec.MsgspecError:
        error = "The arguments are not a JSON object."
        return {**call, "type": "invalid_tool_call", "args": part.args, "error": error}


def _tool(event: str, call_id: str, **what: Any) -> dict[str, Any]:
    return {"event": event, "tool_call_id": call_id, **what}
