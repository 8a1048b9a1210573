"""Messages of a thread as AG-UI shows them, and the other way: https://docs.ag-ui.com/spec/1.0/schema#message"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app.base import json_scan
from app.base.errors import Invalid
from app.protocols.ag_ui.structs import AGUIMessage, ToolCall
from app.protocols.files import FileBlock, file_block, file_in
from app.protocols.parts import SaidCall, calls_in, reasoning_in, text_in

ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "system": "system", "tool": "tool"}
"""Role by type of a thread's message."""

TYPES = {"user": "human", "assistant": "ai", "system": "system", "developer": "system", "tool": "tool"}
"""Type of a thread's message by role; activities and reasoning are for display only."""

PARTS = {"image": "image", "audio": "audio", "video": "video", "file": "document"}
"""Type of a content part by the kind of a file."""

FILES = {*PARTS, *PARTS.values(), "binary"}
"""Types of content parts with a file."""


def reasoning_id(message_id: str) -> str:
    """Return the id of the reasoning in front of a message."""
    return f"{message_id}-reasoning"


def shown(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """Return ``messages``, as clients of LangGraph read them, as AG-UI shows them."""
    return [one for message in messages if isinstance(message, dict) for one in _shown(message)]


def _shown(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    role, message_id = ROLES.get(str(message.get("type"))), str(message.get("id") or "")
    if role is None:
        return
    content = message.get("content")
    found: dict[str, Any] = {"id": message_id, "role": role}
    if role == "assistant":
        if reasoning := reasoning_in(message):
            yield {"id": reasoning_id(message_id), "role": "reasoning", "content": reasoning}
        if text := text_in(content):
            found["content"] = text
        if calls := [_shown_call(call) for call in calls_in(message)]:
            found["toolCalls"] = calls
    elif role == "system":
        found["content"] = text_in(content)
    else:
        found["content"] = shown_content(content)
    if role == "tool":
        found["toolCallId"] = str(message.get("tool_call_id") or "")
        if message.get("status") == "error":
            found["error"] = text_in(content) or "The tool failed."
    if message.get("name") and role != "tool":
        found["name"] = str(message["name"])
    yield found


def _shown_call(call: SaidCall) -> dict[str, Any]:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.args}}


def shown_content(content: Any) -> str | list[dict[str, Any]]:
    """Return the content of a user's or a tool's message: text, or content parts if there is more than text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else msgspec.json.encode(content).decode()
    parts = [part for block in content if (part := _part_of(block)) is not None]
    return parts if any(part["type"] != "text" for part in parts) else text_in(content)


def _part_of(block: Any) -> dict[str, Any] | None:
    """Return a content part, None for a block that AG-UI has no part for."""
    if isinstance(block, str):
        return {"type": "text", "text": block}
    if not isinstance(block, dict):
        return None
    if block.get("type") == "text":
        return {"type": "text", "text": str(block.get("text") or "")}
    file = file_in(block)
    return None if file is None else {"type": PARTS[file.kind], "source": _source_of(file)}


def _source_of(file: FileBlock) -> dict[str, Any]:
    if file.data:
        return {"type": "data", "value": file.data, "mimeType": file.media_type or "application/octet-stream"}
    return {"type": "url", "value": file.url}


def read(message: AGUIMessage, at: int) -> dict[str, Any]:
    """Return ``message``, number ``at`` of its request, as a thread's message under the same id. Raises ``Invalid``."""
    found: dict[str, Any] = {"type": TYPES[message.role], "id": message.id, "content": read_content(message.content)}
    if message.name:
        found["name"] = message.name
    if message.role == "tool":
        if not message.tool_call_id:
            pointer = f"/messages/{at}/toolCallId"
            raise Invalid(f"messages[{at}] answers no call: set toolCallId.", ((pointer, "is missing"),))
        found["tool_call_id"] = message.tool_call_id
        if message.error is not None:
            found |= {"status": "error", "content": found["content"] or message.error}
    if message.tool_calls:
        found["tool_calls"] = [_read_call(call) for call in message.tool_calls]
    return found


def _read_call(call: ToolCall) -> dict[str, Any]:
    try:
        args = json_scan.parse(call.function.arguments or "{}", "The text of a call's arguments", dict[str, Any])
    except Invalid:
        args = {}
    return {"type": "tool_call", "id": call.id, "name": call.function.name, "args": args}


def read_content(content: Any) -> str | list[dict[str, Any]]:
    """Return the content of a thread's message. Parts of other types, and a provider's own files, are left out."""
    if isinstance(content, str):
        return content
    blocks = [block for part in content if (block := _block_of(part))] if isinstance(content, list) else []
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    return "".join(texts) if len(texts) == len(blocks) else blocks


def _block_of(part: Any) -> dict[str, Any] | None:
    if not isinstance(part, dict):
        return None
    kind = str(part.get("type"))
    if kind == "text":
        return {"type": "text", "text": part["text"]} if isinstance(part.get("text"), str) else None
    url, media_type = _url_of(part)
    if url is None or kind not in FILES:
        return None
    name = part.get("filename")
    return file_block(url, "image/*" if kind == "image" else media_type, name if isinstance(name, str) else "")


def _url_of(part: dict[str, Any]) -> tuple[str | None, str]:
    """Return the address of a part's bytes and their media type; no address for a provider's own file.

    ``binary`` parts, from before 1.0, have no ``source``.
    """
    source = part.get("source")
    if not isinstance(source, dict):
        source = {"type": "url" if "url" in part else "data", "value": part.get("url", part.get("data")), **part}
    value, media_type = source.get("value"), str(source.get("mimeType") or "")
    if not isinstance(value, str):
        return None, media_type
    match source.get("type"):
        case "url":
            return value, media_type
        case "data" | "binary":
            url = value if value.startswith(("http:", "https:", "data:")) else f"data:{media_type};base64,{value}"
            return url, media_type
        case _:
            return None, media_type
