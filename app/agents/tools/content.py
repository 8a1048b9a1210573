"""Results of tools in the form of MCP as content of messages: what the model reads, and what clients get in addition.

A server's result is untrusted: types, sizes and encodings are checked here. Source: the specification's page on tools,
https://modelcontextprotocol.io/specification/2026-07-28/server/tools.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.agents.tools.port import ToolResult

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What providers take; other images are for clients alone."""
MAX_BLOCKS = 256
MAX_TEXT_LENGTH = 256 * 1024
"""Characters of all text blocks together that the model gets."""

_encode = msgspec.json.Encoder().encode


def tool_result(raw: Mapping[str, Any]) -> ToolResult:
    """Convert the result of ``tools/call``.

    Text, images and text resources are content for the model; of audio and binary resources it reads a note. The
    artifact holds ``structured_content`` and, in ``content``, the blocks of which the model has a note alone.
    """
    given = raw.get("content")
    blocks = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    shown: list[dict[str, Any]] = []
    withheld: list[Any] = []
    room = MAX_TEXT_LENGTH
    for block in blocks[:MAX_BLOCKS]:
        part, original = _convert(block)
        if part["type"] == "text":
            part["text"] = _cut(part["text"], room)
            room = max(0, room - len(part["text"]))
        shown.append(part)
        if original:
            withheld.append(block)
    if len(blocks) > MAX_BLOCKS:
        shown.append(_text(f"[cut: the result had {len(blocks)} parts]"))
    structured = raw.get("structuredContent")
    if structured is not None and not any(part["type"] == "text" for part in shown):
        shown.append(_text(_cut(_encode(structured).decode(), room)))
    artifact: dict[str, Any] = {}
    if structured is not None:
        artifact["structured_content"] = structured
    if withheld:
        artifact["content"] = withheld
    return ToolResult(
        content=_joined(shown),
        artifact=artifact or None,
        status="error" if raw.get("isError") is True else "success",
    )


def _joined(parts: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return list(parts)


def _convert(block: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the part for the model, and whether it is only a note about the block."""
    kind = block.get("type")
    if kind == "text":
        return _text(_string(block, "text")), False
    if kind == "resource_link":
        title = _string(block, "title") or _string(block, "name")
        described = f": {text}" if (text := _string(block, "description")) else ""
        return _text(f"[resource {title} at {_string(block, 'uri')}{described}]"), True
    if kind == "resource":
        resource = block.get("resource")
        inner = resource if isinstance(resource, Mapping) else {}
        uri = _string(inner, "uri")
        if isinstance(inner.get("text"), str):
            return _text(f"[resource {uri}]\n{_string(inner, 'text')}"), False
        return _media(_string(inner, "mimeType"), _string(inner, "blob"), f"resource {uri}")
    if kind in {"image", "audio"}:
        return _media(_string(block, "mimeType"), _string(block, "data"), kind)
    return _text(f"[a block of the unknown type {str(kind)[:64]!r}]"), True


def _media(mime: str, data: str, what: str) -> tuple[dict[str, Any], bool]:
    try:
        size = len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return _text(f"[{what}: its data is not valid base64]"), False
    if mime in IMAGE_TYPES and size:
        return {"type": "image", "base64": data, "mime_type": mime}, False
    return _text(f"[{what}: {mime[:100] or 'of unknown type'}, {size} bytes]"), True


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _string(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else ""


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[:room]}\n[cut: this part had {len(text)} characters]"
