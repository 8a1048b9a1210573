"""Parts of messages as content of a thread's messages, and back."""

import mimetypes
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.infra.wires.a2a import Message, Part
from app.protocols.a2a.errors import ContentTypeNotSupported
from app.protocols.files import file_block, file_in

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
    return file_block(url, media_type, part.filename or "")


def check_parts(message: Message) -> None:
    """Check each part of ``message``. Raises as ``check_part``."""
    for at, part in enumerate(message.parts):
        check_part(part, at)


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
    file = file_in(block)
    if file is None:
        return None
    name, media_type = file.name or None, file.media_type or None
    return Part(raw=file.data or None, url=file.url or None, filename=name, media_type=media_type)


def answer_in(parts: list[Part]) -> Any:
    """Return what the parts of a message answer to a question: the JSON of a data part, else their text."""
    data = [part.data for part in parts if part.data is not msgspec.UNSET]
    if data:
        return data[0]
    return "\n".join(part.text for part in parts if part.text is not None)
