"""Parts of messages as content of a thread's messages, and back."""

import mimetypes
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.infra.wires.a2a import Message, Part
from app.protocols.a2a.errors import ContentTypeNotSupported

INPUT_MODES = (
    "text/*",
    "application/json",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "audio/wav",
    "audio/mpeg",
    "application/pdf",
)
"""Media types that agents take; what a model makes of them is for the model."""

OUTPUT_MODES = ("text/plain", "application/json")

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)
_VARIANTS = ("text", "raw", "url")


def blocks_of(message: Message) -> str | list[dict[str, Any]]:
    """Return the content of a thread's message with the parts of ``message``: text alone, or content blocks.

    Raises ``Invalid``, ``ContentTypeNotSupported``.
    """
    blocks = [_block(part, at) for at, part in enumerate(message.parts)]
    if not blocks:
        raise Invalid.at("The message is empty: give it at least one part.", "/message/parts")
    if all(block["type"] == "text" for block in blocks):
        return "\n".join(block["text"] for block in blocks)
    return blocks


def _block(part: Part, at: int) -> dict[str, Any]:
    check_part(part, at)
    if part.text is not None:
        return {"type": "text", "text": part.text}
    if part.data is not msgspec.UNSET:
        return {"type": "text", "text": msgspec.json.encode(part.data).decode()}
    media_type = media_type_of(part)
    url = part.url if part.url is not None else f"data:{media_type};base64,{part.raw}"
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    name = {"filename": part.filename} if part.filename else {}
    return {"type": "file", "file": {"file_data": url, "mime_type": media_type, **name}}


def check_part(part: Part, at: int) -> None:
    """Check that a part has one content, of a media type that agents take.

    Raises ``Invalid``, ``ContentTypeNotSupported``.
    """
    given = [name for name in _VARIANTS if getattr(part, name) is not None]
    if len(given) + (part.data is not msgspec.UNSET) != 1:
        raise Invalid.at("A part has exactly one of text, raw, url and data.", f"/message/parts/{at}")
    media_type = media_type_of(part)
    known = any(media_type == mode or (mode == "text/*" and media_type.startswith("text/")) for mode in INPUT_MODES)
    if not known:
        raise ContentTypeNotSupported(
            f"message.parts[{at}] has the media type {media_type[:100]}: send one of {', '.join(INPUT_MODES)}."
        )


def media_type_of(part: Part) -> str:
    """Return the media type of a part: as it says, or as its content and file name tell."""
    if part.media_type:
        return part.media_type.partition(";")[0].strip().lower()
    if part.text is not None:
        return "text/plain"
    if part.data is not msgspec.UNSET:
        return "application/json"
    return mimetypes.guess_type(part.filename or part.url or "")[0] or "application/octet-stream"


def parts_of(content: Any) -> list[Part]:
    """Return the parts of the content of a thread's message; blocks that say nothing to a peer are left out."""
    if isinstance(content, str):
        return [Part(text=content)] if content else []
    return list(_parts(content if isinstance(content, list) else []))


def _parts(blocks: Iterable[Any]) -> Iterator[Part]:
    for block in blocks:
        if isinstance(block, str):
            yield Part(text=block)
        elif isinstance(block, dict):
            part = _part(block)
            if part is not None:
                yield part


def _part(block: dict[str, Any]) -> Part | None:
    """Return the part of a content block, in OpenAI's or LangChain's form; None if it has nothing to show."""
    kind = str(block.get("type"))
    if kind == "text":
        return Part(text=str(block["text"])) if block.get("text") else None
    if kind in {"data", "non_standard"}:
        return Part(data=block.get("data", block.get("value")), media_type="application/json")
    if kind == "image_url":
        image = block.get("image_url")
        return _file(image.get("url") if isinstance(image, dict) else image, None, None)
    if kind == "file" and isinstance(block.get("file"), dict):
        file = block["file"]
        return _file(file.get("file_data") or file.get("url"), file.get("mime_type"), file.get("filename"))
    if kind in {"file", "image", "audio", "video"}:
        name, media_type = block.get("filename") or block.get("name"), block.get("mime_type")
        raw = block.get("base64") or block.get("data")
        if isinstance(raw, str):
            return Part(raw=raw, filename=name, media_type=media_type)
        return _file(block.get("url"), media_type, name)
    return None


def _file(url: Any, media_type: str | None, name: str | None) -> Part | None:
    if not isinstance(url, str) or not url:
        return None
    inline = _DATA_URL.fullmatch(url)
    if inline is not None:
        return Part(raw=inline[2], filename=name, media_type=media_type or inline[1] or None)
    return Part(url=url, filename=name, media_type=media_type or mimetypes.guess_type(name or url)[0])


def answer_in(parts: list[Part]) -> Any:
    """Return what the parts of a message answer to a question: the JSON of a data part, else their text."""
    data = [part.data for part in parts if part.data is not msgspec.UNSET]
    if data:
        return data[0]
    return "\n".join(part.text for part in parts if part.text is not None)
