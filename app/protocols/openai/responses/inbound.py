"""Input items as messages of a run, or as answers to its questions."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

from app.base import json_scan
from app.base.errors import Invalid
from app.domain.messages import WAITING_CALLS
from app.engine.execution.questions import OpenQuestion
from app.protocols.openai.responses.compaction import MAX_SUMMARY_BYTES, compacted_message
from app.protocols.openai.responses.items import Item, asked_in
from app.protocols.openai.responses.structs import ResumedCall
from app.protocols.questions import approval, client_call_id, kind_of

ROLES = {"user": "human", "system": "system", "developer": "system", "assistant": "ai"}
"""Type of a thread's message by role."""

SKIPPED = frozenset({"reasoning", "mcp_list_tools", "mcp_approval_request"})
"""Items of earlier responses that say nothing to a model."""

_encode = msgspec.json.Encoder().encode


class GivenInput(NamedTuple):
    """The input of a request. ``results``: results of client tools by call id; ``approvals``: answers by request id.

    ``messages`` has the results too, as tool messages; ``only_answers``: there is nothing else.
    """

    messages: list[dict[str, Any]]
    results: dict[str, Any]
    approvals: dict[str, Item]
    only_answers: bool


def read_input(given: str | Sequence[Any] | None) -> GivenInput:
    """Read the ``input`` of a request. Raises ``Invalid``."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    reader = _Reader()
    for at, item in enumerate(given or ()):
        if not isinstance(item, dict):
            raise _invalid(f"input/{at}", "must be an item, an object")
        reader.read(item, f"input/{at}")
    if not reader.messages and not reader.approvals:
        raise _invalid("input", "is empty: send a text or items")
    return GivenInput(reader.messages, reader.results, reader.approvals, reader.only_answers)


class _Reader:
    """Collects items in order. Calls join the answer before them, as a thread has both in one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.results: dict[str, Any] = {}
        self.approvals: dict[str, Item] = {}
        self.only_answers = True
        self._room = MAX_SUMMARY_BYTES

    def read(self, item: Item, at: str) -> None:
        kind = str(item.get("type") or ("message" if "role" in item else ""))
        if kind == "function_call_output":
            self._result(item, at)
            return
        if kind == "mcp_approval_response":
            self.approvals[_text(item, "approval_request_id", at).removeprefix("mcpr_")] = item
            return
        if kind in SKIPPED:
            return
        self.only_answers = False
        match kind:
            case "message":
                self._message(item, at)
            case "function_call":
                call_id = _text(item, "call_id", at)
                self._call(item, call_id, at)
                self.messages[-1]["response_metadata"].setdefault(WAITING_CALLS, {})[call_id] = "client"
            case "mcp_call":
                self._call(item, _text(item, "id", at), at)
                error = item.get("error")
                output = str(item.get("output") or "") if error is None else _encode(error).decode()
                status = "success" if error is None else "error"
                self._answer(_text(item, "id", at), output, status)
            case "compaction":
                message, size = compacted_message(item, at, self._room)
                self._room -= size
                self.messages.append(message)
            case "item_reference":
                raise _invalid(at, "is an item_reference: use previous_response_id or a conversation instead")
            case _:
                raise _invalid(f"{at}/type", f"is {kind[:100]!r}, which is not an item that an agent reads")

    def _message(self, item: Item, at: str) -> None:
        role = str(item.get("role"))
        if role not in ROLES:
            raise _invalid(f"{at}/role", f"must be one of {', '.join(ROLES)}")
        made: dict[str, Any] = {"type": ROLES[role], "content": content_of(item.get("content"), f"{at}/content")}
        if isinstance(item.get("id"), str) and item["id"]:
            made["id"] = item["id"]
        self.messages.append(made)

    def _call(self, item: Item, call_id: str, at: str) -> None:
        arguments = item.get("arguments") or "{}"
        try:
            text = arguments if isinstance(arguments, str) else ""
            args = json_scan.parse(text, "The text of a call's arguments", dict[str, Any])
        except Invalid as error:
            raise _invalid(f"{at}/arguments", "must be the JSON text of an object") from error
        last = self.messages[-1] if self.messages else {}
        if last.get("type") != "ai":
            last = {"type": "ai", "content": ""}
            self.messages.append(last)
        last.setdefault("response_metadata", {})
        call = {"type": "tool_call", "id": call_id, "name": _text(item, "name", at), "args": args}
        last.setdefault("tool_calls", []).append(call)

    def _result(self, item: Item, at: str) -> None:
        call_id, output = _text(item, "call_id", at), item.get("output")
        self.results[call_id] = content = content_of(output, f"{at}/output")
        self._answer(call_id, content, "success")

    def _answer(self, call_id: str, content: Any, status: str) -> None:
        self.messages.append({"type": "tool", "tool_call_id": call_id, "content": content, "status": status})


def content_of(content: Any, at: str) -> str | list[dict[str, Any]]:
    """Return a text or content parts as a message's content. Raises ``Invalid``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _invalid(at, "must be a text or a list of content parts")
    blocks = [_block(part, f"{at}/{n}") for n, part in enumerate(content)]
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    return "".join(texts) if blocks and len(texts) == len(blocks) else blocks


def _block(part: Any, at: str) -> dict[str, Any]:
    part = part if isinstance(part, dict) else {}
    match part.get("type"):
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": _text(part, "text", at, empty=True)}
        case "refusal":
            return {"type": "text", "text": _text(part, "refusal", at, empty=True)}
        case "input_image":
            if part.get("file_id"):
                raise _invalid(f"{at}/file_id", "is not known: send the image as image_url")
            image = {"url": _text(part, "image_url", at)}
            return {
                "type": "image_url",
                "image_url": image | ({"detail": part["detail"]} if part.get("detail") else {}),
            }
        case "input_file":
            names = [name for name in ("file_data", "file_url", "filename") if part.get(name)]
            if not {"file_data", "file_url"} & set(names):
                raise _invalid(at, "needs file_data or file_url: files are not stored here under a file_id")
            return {"type": "file", "file": {name: _text(part, name, at) for name in names}}
        case kind:
            raise _invalid(f"{at}/type", f"is {str(kind)[:100]!r}, which is not a content part")


def _text(item: Item, name: str, at: str, *, empty: bool = False) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise _invalid(f"{at}/{name}", "must be a text")
    return value


def _invalid(pointer: str, words: str) -> Invalid:
    return Invalid(f"{pointer.replace('/', '.')} {words}.", ((f"/{pointer}", words),))


def input_messages(given: Any, run_id: UUID) -> list[dict[str, Any]]:
    """Return the messages of a stored input, with the ids that the thread has them under."""
    messages = given.get("messages") if isinstance(given, dict) else given
    if isinstance(messages, str):
        messages = [{"type": "human", "content": messages}]
    found = [message for message in messages or () if isinstance(message, dict)] if isinstance(messages, list) else []
    return [{"id": str(uuid5(run_id, str(at))), **message} for at, message in enumerate(found)]


def answer_of(question: OpenQuestion, response: Item) -> Any:
    """Return an ``mcp_approval_response`` as the answer to ``question``.

    To anything but an approval or a review, ``reason`` is the answer: JSON, or a text; without one, ``approve`` is.
    """
    approved, reason = response.get("approve") is True, response.get("reason")
    kind = kind_of(question.value) if question.kind == "question" else question.kind
    if kind == "review":
        return {"action": "retry"} if approved else {"action": "failed", "result": reason}
    if kind == "approval":
        return approval(question.value, approved, reason)
    if not isinstance(reason, str) or not reason:
        return approved
    try:
        return json_scan.parse(reason, "The reason")
    except Invalid:
        return reason


def resumed_calls(questions: Sequence[OpenQuestion], answered: Sequence[str]) -> dict[str, ResumedCall]:
    """Return the calls that wait for the ``answered`` of the open ``questions``, by call id."""
    found: dict[str, ResumedCall] = {}
    for one in questions:
        if one.id in answered and one.call_id is not None:
            _, arguments = asked_in(one.value)
            client = client_call_id(one.value) is not None
            found[one.call_id] = ResumedCall(arguments=arguments, question=one.id, client=client)
    return found
