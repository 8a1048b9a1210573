"""Project a run onto streaming events of a response: https://platform.openai.com/docs/api-reference/responses-streaming

``sequence_number`` is the frame's number, without holes. There is one exception: after an owner of the run has died,
what it streamed and did not commit is said again, and the numbers jump, so that they stay the same for every reader.
``output_index`` is never used twice, and has no holes: SDKs refuse both. So that the items after a loss have the same
positions for every reader, each loss takes ``LOST_POSITIONS``: of lost items, and of empty ones where there are fewer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from app.base.ids import time_of
from app.domain.events import Event
from app.domain.messages import Usage
from app.protocols import parts
from app.protocols.openai.endings import early_finish, is_cut
from app.protocols.openai.responses import items
from app.protocols.openai.responses.items import Item
from app.protocols.openai.responses.response import ResponseHead, seconds, usage_of
from app.protocols.parts import Part, PartAssembler
from app.protocols.projection import FrameNumbers, ProjectedFrame
from app.protocols.questions import client_call_id
from app.protocols.states import RunState

DONE = b"data: [DONE]\n\n"
STATUSES = {RunState.SUCCESS: "completed", RunState.ASKING: "completed", RunState.CANCELLED: "cancelled"}
"""``status`` by the state that a run ends with; every other one: ``failed``."""

TERMINAL = {"completed": "response.completed", "failed": "response.failed"}
"""Last event by status; any other status: ``response.incomplete``."""

FINISHED_EARLY = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""``incomplete_details.reason`` by the reason why the last model call did not finish."""

LOST_POSITIONS = 8
"""Positions that a loss takes: more than the reasoning, the text and the calls of a message mostly need."""

_encode = msgspec.json.Encoder().encode


def stopping_after(response_id: str, number: int) -> bytes:
    """Return the last event to the reader of a server that stops, who has the events up to ``number`` (-1: none)."""
    after = f" and starting_after={number}" if number >= 0 else ""
    words = f"The server is stopping: retrieve the response {response_id} with stream{after}."
    at = max(number, 0)
    error = {"type": "error", "code": "server_error", "message": words, "param": None, "sequence_number": at}
    return b"event: error\ndata: %b\n\n" % _encode(error)


class _Growing:
    """An item that a message says at the moment; ``delta``: the frame of a chunk of it, up to the chunk.

    ``lost``: it was withdrawn, so it is not in the response.
    """

    __slots__ = ("delta", "index", "item", "lost", "message_id")

    def __init__(self, index: int, item: Item, message_id: str, delta: bytes = b"") -> None:
        self.index = index
        self.item = item
        self.message_id = message_id
        self.delta = delta
        self.lost = False


class ResponseProjection:
    """Streaming events of one response. Implements ``app.protocols.projection.Projection``.

    ``response``: the response itself, once the run has ended.
    """

    stopping = b""  # the stream has the number of its reader's last event (``stopping_after``)

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._assembler = PartAssembler()
        self._numbers = FrameNumbers()
        self._begun = False
        self._at: int | None = None
        self._output: list[_Growing] = []
        self._texts: dict[str, _Growing] = {}
        self._said: list[_Growing] = []
        self._reasoning: dict[str, _Growing] = {}
        self._calls: dict[str, _Growing] = {}
        self._ended_calls: dict[str, parts.ToolCallEnd] = {}
        self._usages: list[Usage] = []
        self._early = ""
        self._failure: parts.RunFailed | None = None
        self.response: dict[str, Any] | None = None

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the streaming events of ``event``."""
        for part in self._assembler.parts(event):
            if isinstance(part, parts.TextDelta):  # what most parts are
                growing = self._texts[part.message_id]
                number = self._numbers.next()
                data = b'%b%b,"logprobs":[],"sequence_number":%d}\n\n' % (growing.delta, _encode(part.text), number)
                yield ProjectedFrame(number, data)
                continue
            for kind, members in self._events(part):
                number = self._numbers.next()
                body = _encode({"type": kind, **members, "sequence_number": number})
                yield ProjectedFrame(number, b"event: %b\ndata: %b\n\n" % (kind.encode(), body))
            if isinstance(part, parts.RunEnds):
                yield ProjectedFrame(self._numbers.next(), DONE)

    def collect(self, event: Event) -> None:
        """Take ``event`` for ``response`` alone: a text's end says what its chunks do, and nothing is encoded."""
        for part in self._assembler.parts(event):
            if not isinstance(part, parts.TextDelta):
                for _ in self._events(part):
                    pass

    def _events(self, part: Part) -> Iterator[tuple[str, dict[str, Any]]]:
        match part:
            case parts.RunBegins():
                self._passed(part.run_id)
                yield from self._begin()
            case parts.InputTaken():
                self._passed(part.checkpoint_id)
            case parts.StepDone():
                self._passed(part.checkpoint_id)
                yield from self._settle(self._said)
            case parts.TextStart() | parts.TextEnd():
                yield from self._text(part)
            case parts.ReasoningStart() | parts.ReasoningDelta() | parts.ReasoningEnd():
                yield from self._reason(part)
            case parts.ToolCallStart() | parts.ToolCallDelta() | parts.ToolCallEnd():
                yield from self._call(part)
            case parts.MessageDone():
                yield from self._done(part)
            case parts.ToolResult():
                yield from self._result(part)
            case parts.MessagesRetracted():
                yield from self._retract(part)
            case parts.QuestionsAsked():
                for question in part.questions:
                    if client_call_id(question.get("value")) is None:
                        yield from self._whole(items.approval_request(question, self._head.agent))
            case parts.RunFailed():
                self._failure = part
            case parts.RunEnds():
                yield from self._end(part)

    def _passed(self, id_: str) -> None:
        """Take the time of the end from the last id that contains one, so that a replay has the same time."""
        made_at = time_of(id_) if id_ else None
        if made_at is not None:
            self._at = seconds(made_at)

    def _begin(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._begun:
            return
        self._begun = True
        if self._head.settings.background:
            yield "response.created", {"response": self._head.object("queued")}
            yield "response.queued", {"response": self._head.object("queued")}
        else:
            yield "response.created", {"response": self._head.object("in_progress")}
        yield "response.in_progress", {"response": self._head.object("in_progress")}

    def _add(self, item: Item, message_id: str) -> tuple[_Growing, tuple[str, dict[str, Any]]]:
        growing = _Growing(len(self._output), item, message_id)
        self._output.append(growing)
        return growing, ("response.output_item.added", {"output_index": growing.index, "item": dict(item)})

    def _finish(self, growing: _Growing) -> tuple[str, dict[str, Any]]:
        return "response.output_item.done", {"output_index": growing.index, "item": growing.item}

    def _whole(self, item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
        growing, added = self._add(item, "")
        yield added
        yield self._finish(growing)

    def _text(self, part: parts.TextStart | parts.TextEnd) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(part, parts.TextStart):
            item_id = self._free_id(items.message_id(part.message_id))
            growing, added = self._add(items.message_item(item_id, None, "in_progress"), part.message_id)
            yield added
            self._texts[part.message_id] = growing
            kind = "response.output_text.delta"
            growing.delta = (
                b'event: %b\ndata: {"type":"%b","item_id":%b,"output_index":%d,"content_index":0,"delta":'
                % (
                    kind.encode(),
                    kind.encode(),
                    _encode(item_id),
                    growing.index,
                )
            )
            place = {"item_id": item_id, "output_index": growing.index, "content_index": 0}
            yield "response.content_part.added", {**place, "part": items.output_text("")}
            return
        growing = self._texts.pop(part.message_id)
        item_id = growing.item["id"]
        growing.item = items.message_item(item_id, part.text, "completed")
        place = {"item_id": item_id, "output_index": growing.index, "content_index": 0}
        self._said.append(growing)
        yield "response.output_text.done", {**place, "text": part.text, "logprobs": []}

    def _settle(self, said: Sequence[_Growing]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Finish texts that were ``said``: their annotations came with the commit, or none will."""
        self._said = [one for one in self._said if one not in said]
        for growing in said:
            place = {"item_id": growing.item["id"], "output_index": growing.index, "content_index": 0}
            yield "response.content_part.done", {**place, "part": growing.item["content"][0]}
            yield self._finish(growing)

    def _free_id(self, item_id: str) -> str:
        """Return ``item_id``, or one that follows it: a message may say text, call a tool, and say text again."""
        taken = sum(1 for one in self._output if str(one.item["id"]).partition("-")[0] == item_id)
        return f"{item_id}-{taken + 1}" if taken else item_id

    def _reason(
        self, part: parts.ReasoningStart | parts.ReasoningDelta | parts.ReasoningEnd
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(part, parts.ReasoningStart):
            item_id = self._free_id(items.message_id(part.message_id).replace("msg_", "rs_"))
            growing, added = self._add(items.reasoning_item(item_id, None, "in_progress"), part.message_id)
            yield added
            self._reasoning[part.message_id] = growing
            place = {"item_id": item_id, "output_index": growing.index, "summary_index": 0}
            yield "response.reasoning_summary_part.added", {**place, "part": {"type": "summary_text", "text": ""}}
            return
        growing = self._reasoning[part.message_id]
        place = {"item_id": growing.item["id"], "output_index": growing.index, "summary_index": 0}
        if isinstance(part, parts.ReasoningDelta):
            yield "response.reasoning_summary_text.delta", {**place, "delta": part.text}
            return
        del self._reasoning[part.message_id]
        growing.item = items.reasoning_item(growing.item["id"], part.text, "completed")
        yield "response.reasoning_summary_text.done", {**place, "text": part.text}
        yield "response.reasoning_summary_part.done", {**place, "part": growing.item["summary"][0]}
        yield self._finish(growing)

    def _call(
        self, part: parts.ToolCallStart | parts.ToolCallDelta | parts.ToolCallEnd
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Tell calls of the client's tools as they come; those of the agent's own once their message is committed."""
        if isinstance(part, parts.ToolCallStart):
            if part.name in self._head.client_tools:
                item = items.function_call(part.call_id, part.name, "", "in_progress")
                self._calls[part.call_id], added = self._add(item, part.message_id)
                yield added
            return
        growing = self._calls.get(part.call_id)
        if growing is None:
            if isinstance(part, parts.ToolCallEnd):
                self._ended_calls[part.call_id] = part
            return
        place = {"item_id": growing.item["id"], "output_index": growing.index}
        if isinstance(part, parts.ToolCallDelta):
            yield "response.function_call_arguments.delta", {**place, "delta": part.args}
            return
        growing.item = items.function_call(part.call_id, part.name, part.args, "completed")
        members = {**place, "name": part.name, "arguments": part.args}
        yield "response.function_call_arguments.done", members
        yield self._finish(growing)

    def _done(self, part: parts.MessageDone) -> Iterator[tuple[str, dict[str, Any]]]:
        if part.usage is not None:
            self._usages.append(part.usage)
        self._early = early_finish(part.message)
        said = [one for one in self._said if one.message_id == part.message_id]
        if said:
            yield from self._cite(said[-1], items.annotations_in(part.message.get("content")))
        yield from self._settle(said)
        waiting = items.waiting_calls(part.message)
        for call in parts.calls_in(part.message):
            ended = self._ended_calls.get(call.call_id)
            if ended is not None and call.call_id not in waiting:
                yield from self._start_call(ended.call_id, ended.name, ended.args)

    def _cite(self, growing: _Growing, annotations: list[Item]) -> Iterator[tuple[str, dict[str, Any]]]:
        growing.item["content"][0]["annotations"] = annotations
        place = {"item_id": growing.item["id"], "output_index": growing.index, "content_index": 0}
        for at, annotation in enumerate(annotations):
            members = {**place, "annotation_index": at, "annotation": annotation}
            yield "response.output_text.annotation.added", members

    def _start_call(self, call_id: str, name: str, arguments: str) -> Iterator[tuple[str, dict[str, Any]]]:
        resumed = self._head.settings.resumed.get(call_id)
        request_id = None if resumed is None else resumed.request_id
        growing, added = self._add(items.tool_call(call_id, name, arguments, self._head.agent, request_id), "")
        self._calls[call_id] = growing
        yield added
        place = {"item_id": growing.item["id"], "output_index": growing.index}
        yield "response.mcp_call.in_progress", place
        yield "response.mcp_call_arguments.done", {**place, "arguments": arguments}

    def _result(self, part: parts.ToolResult) -> Iterator[tuple[str, dict[str, Any]]]:
        resumed = self._head.settings.resumed.get(part.call_id)
        growing = self._calls.get(part.call_id)
        if growing is None:
            if part.name in self._head.client_tools or (resumed is not None and resumed.client):
                return  # the request has it
            ended = self._ended_calls.get(part.call_id)
            arguments = ended.args if ended is not None else resumed.arguments if resumed is not None else ""
            yield from self._start_call(part.call_id, part.name, arguments)
            growing = self._calls[part.call_id]
        if growing.item["type"] != "mcp_call":
            return
        items.finish_call(growing.item, part.content, failed=part.failed)
        place = {"item_id": growing.item["id"], "output_index": growing.index}
        yield f"response.mcp_call.{growing.item['status']}", place
        yield self._finish(growing)

    def _retract(self, part: parts.MessagesRetracted) -> Iterator[tuple[str, dict[str, Any]]]:
        """Withdraw what was streamed and did not commit. A replay does not have it: empty items take its positions."""
        lost = [one for one in self._output if one.message_id in part.message_ids and not one.lost]
        for growing in lost:
            growing.lost = True
        yield from self._break_off([one for one in self._said if one.lost])
        for _ in range(LOST_POSITIONS - len(lost)):
            item_id = f"rs_lost_{self._head.run_id.hex}_{len(self._output)}"
            growing, added = self._add(items.reasoning_item(item_id, None, "incomplete"), "")
            growing.lost = True
            yield added
            yield self._finish(growing)
        self._numbers.retracted(part.epoch)

    def _break_off(self, said: Sequence[_Growing]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Finish texts whose message will not be committed."""
        for growing in said:
            growing.item["status"] = "incomplete"
        yield from self._settle(said)

    def _end(self, part: parts.RunEnds) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._break_off(self._said)
        kept = [one for one in self._output if not one.lost]
        for growing in kept:
            if growing.item.get("status") == "in_progress":
                growing.item["status"] = "incomplete"
                yield self._finish(growing)
        status = STATUSES.get(part.state, "failed")
        known: dict[str, Any] = {"output": [one.item for one in kept], "usage": usage_of(self._usages)}
        reason = FINISHED_EARLY.get(self._early)
        if self._failure is not None and status != "cancelled":
            status = "failed"
            known["error"] = {"code": self._failure.error, "message": self._failure.message}
            if is_cut(self._failure):
                status, known["error"] = "incomplete", None
                known["incomplete_details"] = {"reason": "max_output_tokens"}
        elif status == "failed":
            known["error"] = {"code": "server_error", "message": "The run did not end in time."}
        elif status == "completed" and reason is not None:
            status, known["incomplete_details"] = "incomplete", {"reason": reason}
        if status == "completed":
            known["completed_at"] = self._at
        self.response = self._head.object(status, **known)
        yield TERMINAL.get(status, "response.incomplete"), {"response": self.response}


class ResponseCollector:
    """Collects the events of a whole run. ``response`` is there once it has ended."""

    def __init__(self, head: ResponseHead) -> None:
        self._projection = ResponseProjection(head)

    def add(self, events: Sequence[Event]) -> None:
        """Add events."""
        for event in events:
            self._projection.collect(event)

    @property
    def response(self) -> dict[str, Any]:
        """The response."""
        assert self._projection.response is not None
        return self._projection.response
