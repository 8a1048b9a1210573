"""Messages of a thread as items, and items as they grow in a stream.

The agent's own tools are items of type ``mcp_call``, as OpenAI shows tools that run on the server; calls of the
client's tools are ``function_call``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.domain.messages import WAITING_CALLS
from app.protocols.parts import calls_in, reasoning_in, text_in
from app.protocols.questions import calls_of, decision_in

MAX_PAGE = 100

ROLES = {"human": "user", "system": "system", "ai": "assistant"}

Item = dict[str, Any]
_encode = msgspec.json.Encoder().encode


def message_id(of: str) -> str:
    """Return the item id of the text of a message."""
    return "msg_" + of.removeprefix("run--").replace("-", "")


def message_item(item_id: str, text: str | None, status: str, annotations: Iterable[Item] = ()) -> Item:
    """Return the item of an answer; ``text`` None: it has just begun."""
    content = [] if text is None else [output_text(text, annotations)]
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": content}


def output_text(text: str, annotations: Iterable[Item] = ()) -> Item:
    """Return the content part of an answer's text."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def reasoning_item(item_id: str, text: str | None, status: str) -> Item:
    """Return the item of reasoning that the model shows; ``text`` None: it has just begun."""
    summary = [] if text is None else [{"type": "summary_text", "text": text}]
    return {"type": "reasoning", "id": item_id, "summary": summary, "encrypted_content": None, "status": status}


def function_call(call_id: str, name: str, arguments: str, status: str) -> Item:
    """Return the item of a call of a client's tool."""
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def function_call_output(call_id: str, content: Any) -> Item:
    """Return the item of the result of a client's tool."""
    output = content if isinstance(content, str) else input_parts(content)
    return {
        "type": "function_call_output",
        "id": f"fco_{call_id}",
        "call_id": call_id,
        "output": output,
        "status": "completed",
    }


def tool_call(call_id: str, name: str, arguments: str, label: str, request_id: str | None = None) -> Item:
    """Return the item of a call of the agent's own tool that runs."""
    return {
        "type": "mcp_call",
        "id": f"mcp_{call_id}",
        "server_label": label,
        "name": name,
        "arguments": arguments,
        "approval_request_id": request_id,
        "output": None,
        "error": None,
        "status": "in_progress",
    }


def finish_call(item: Item, content: Any, *, failed: bool) -> None:
    """Put the result of a tool into its item."""
    text = text_in(content)
    if failed:
        item["error"] = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
    else:
        item["output"] = text
    item["status"] = "failed" if failed else "completed"


def approval_request(question: Mapping[str, Any], label: str) -> Item:
    """Return the item of a question to a person: a call that waits for approval, or any other question."""
    value = question.get("value")
    name, arguments = asked_in(value)
    return {
        "type": "mcp_approval_request",
        "id": f"mcpr_{question['id']}",
        "server_label": label,
        "name": name,
        "arguments": arguments,
    }


def asked_in(value: Any) -> tuple[str, str]:
    """Return the name and the JSON arguments of the call that a question is about; those of any other: ``question``."""
    calls = calls_of(value)
    if len(calls) == 1:
        return calls[0].name, calls[0].arguments
    return "question", _encode({"question": value}).decode()


def approval_response(question: str, answer: Any) -> Item:
    """Return the item of an answer to an approval request."""
    approve, reason = decision_in(answer)
    return {
        "type": "mcp_approval_response",
        "id": f"mcpa_{question}",
        "approval_request_id": f"mcpr_{question}",
        "approve": approve,
        "reason": reason,
    }


def annotations_in(content: Any) -> list[Item]:
    """Return the citations in an answer's content blocks, as LangChain's standard blocks carry them."""
    blocks = content if isinstance(content, list) else ()
    found: list[Item] = []
    for block in blocks:
        cited = block.get("annotations") if isinstance(block, dict) else None
        found += [_annotation(one) for one in cited or () if isinstance(one, dict) and one.get("type") == "citation"]
    return found


def _annotation(citation: Mapping[str, Any]) -> Item:
    start, end, title = citation.get("start_index") or 0, citation.get("end_index") or 0, citation.get("title") or ""
    if citation.get("url"):
        place = {"start_index": start, "end_index": end}
        return {"type": "url_citation", "url": str(citation["url"]), "title": str(title), **place}
    return {"type": "file_citation", "file_id": str(citation.get("id") or title), "filename": str(title), "index": end}


def input_parts(content: Any) -> list[Item]:
    """Return a message's content as input parts."""
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return [_input_part(block) for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _input_part(block: Mapping[str, Any]) -> Item:
    match block.get("type"):
        case "text":
            return {"type": "input_text", "text": str(block.get("text") or "")}
        case "image_url":
            image = block.get("image_url")
            image = image if isinstance(image, dict) else {"url": image}
            detail = image.get("detail") or "auto"
            return {"type": "input_image", "image_url": image.get("url"), "file_id": None, "detail": detail}
        case "file":
            file = block.get("file")
            return {"type": "input_file", **(file if isinstance(file, dict) else {})}
        case _:
            return {"type": "input_text", "text": _encode(block).decode()}


def items_of(messages: Iterable[Mapping[str, Any]], label: str) -> list[Item]:
    """Return messages, as clients of LangGraph read them, as items; results of the agent's tools are in their calls."""
    found: list[Item] = []
    own: dict[str, Item] = {}
    for message in messages:
        match str(message.get("type")):
            case "tool":
                call_id = str(message.get("tool_call_id") or "")
                if call_id in own:
                    finish_call(own[call_id], message.get("content"), failed=message.get("status") == "error")
                else:
                    found.append(function_call_output(call_id, message.get("content")))
            case "ai" | "AIMessageChunk":
                found += _answer_items(message, label, own)
            case kind if kind in ROLES:
                parts = input_parts(message.get("content"))
                id_, role = message_id(str(message.get("id") or "")), ROLES[kind]
                found.append({"type": "message", "id": id_, "status": "completed", "role": role, "content": parts})
    return found


def _answer_items(message: Mapping[str, Any], label: str, own: dict[str, Item]) -> Iterable[Item]:
    of, content = str(message.get("id") or ""), message.get("content")
    if reasoning := reasoning_in(message):
        yield reasoning_item(message_id(of).replace("msg_", "rs_"), reasoning, "completed")
    if text := text_in(content):
        yield message_item(message_id(of), text, "completed", annotations_in(content))
    waiting = waiting_calls(message)
    for call_id, name, arguments in calls_in(message):
        if waiting.get(call_id) == "client":
            yield function_call(call_id, name, arguments, "completed")
        else:
            own[call_id] = tool_call(call_id, name, arguments, label)
            yield own[call_id]


def waiting_calls(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what calls of an answer wait for before they run, by call id."""
    metadata = message.get("response_metadata")
    found = metadata.get(WAITING_CALLS) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def page_of(found: list[Item], *, after: str | None, limit: int, order: str) -> dict[str, Any]:
    """Return a page of items as OpenAI's lists: ``order`` is ``asc`` or ``desc``, ``after`` an item's id."""
    if not 1 <= limit <= MAX_PAGE or order not in {"asc", "desc"}:
        raise Invalid(f"limit must be from 1 to {MAX_PAGE}, order asc or desc.", (("/limit", "out of range"),))
    ordered = found if order == "asc" else found[::-1]
    if after is not None:
        at = next((at for at, item in enumerate(ordered) if item["id"] == after), None)
        if at is None:
            raise Invalid(f"after is {after[:100]!r}: no such item.", (("/after", "is not an item"),))
        ordered = ordered[at + 1 :]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > limit,
    }


def without(messages: Sequence[Mapping[str, Any]], item_id: str) -> list[dict[str, Any]]:
    """Return the messages that replace those of an item, so that it is gone; none if there is no such item."""
    found = [(message, item) for message in messages for item in items_of([message], "") if item["id"] == item_id]
    changes = [_changed(message, item) for message, item in found]
    if any(item["type"] == "mcp_call" for _, item in found):
        call_id = item_id.removeprefix("mcp_")
        changes += [_removed(one) for one in messages if call_id and one.get("tool_call_id") == call_id]
    return changes


def _removed(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "remove", "id": message["id"]}


def _changed(message: Mapping[str, Any], item: Item) -> dict[str, Any]:
    """Return ``message`` without ``item``, or its removal if nothing else is in it."""
    if len(items_of([message], "")) == 1:
        return _removed(message)
    changed = dict(message)
    if item["type"] == "message":
        changed["content"] = ""
    elif item["type"] == "reasoning":
        kept = message["additional_kwargs"]
        changed["additional_kwargs"] = {name: value for name, value in kept.items() if name != "reasoning_content"}
    else:
        call_id = item["id"].partition("_")[2]
        changed["tool_calls"] = [
            call for call in message["tool_calls"] if isinstance(call, dict) and call.get("id") != call_id
        ]
    return changed
