"""What another agent returned, as content of messages: untrusted, so types and sizes are checked."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from app.agents.tools.content import tool_result
from app.agents.tools.port import ToolResult
from app.infra.wires.a2a import Message, Part, Task

MAX_WORDS_LENGTH = 4_000

_encode = msgspec.json.Encoder().encode


def result_of(answer: Task | Message) -> ToolResult:
    """Return the result of a call: all that a completed task made, or the message that answered without a task."""
    if isinstance(answer, Message):
        return _result(answer.parts, {})
    parts = [part for artifact in answer.artifacts or () for part in artifact.parts]
    if not parts and answer.status.message is not None:
        parts = answer.status.message.parts
    return _result(parts, {"task_id": answer.id, "context_id": answer.context_id})


def _result(parts: Iterable[Part], about: dict[str, Any]) -> ToolResult:
    result = tool_result({"content": list(map(_block, parts))})
    return ToolResult(content=result.content, artifact={**about, **(result.artifact or {})} or None)


def _block(part: Part) -> dict[str, Any]:
    """Return a part as a content block of MCP, whose results are checked and cut in one place."""
    if part.text is not None:
        return {"type": "text", "text": part.text}
    if part.data is not msgspec.UNSET:
        return {"type": "text", "text": _encode(part.data).decode()}
    media_type = (part.media_type or "").partition(";")[0].strip().lower()
    if part.raw is not None and media_type.startswith("image/"):
        return {"type": "image", "data": part.raw, "mimeType": media_type}
    if part.raw is not None:
        resource = {"uri": part.filename or "file", "mimeType": media_type, "blob": part.raw}
        return {"type": "resource", "resource": resource}
    return {"type": "resource_link", "name": part.filename or "file", "uri": part.url or ""}


def words_of(message: Message | None) -> str:
    """Return the text of a message, shortened."""
    return "\n".join(_texts(message))[:MAX_WORDS_LENGTH]


def _texts(message: Message | None) -> Iterator[str]:
    for part in [] if message is None else message.parts:
        if part.text:
            yield part.text


def data_of(message: Message | None) -> list[Any]:
    """Return the data parts of a message."""
    return [part.data for part in ([] if message is None else message.parts) if part.data is not msgspec.UNSET]
