"""Collect a run into the result of a tool: https://modelcontextprotocol.io/specification/2026-07-28/server/tools

The content is the last message of the agent. Other values that it sets are the structured content.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from app.domain.events import Event
from app.domain.state import MESSAGES
from app.protocols import parts
from app.protocols.mcp.surface import Progress
from app.protocols.parts import PartAssembler
from app.protocols.states import RunState

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


class ResultCollector:
    """Collects the events of one run. ``structured``: its tool has a schema of its values.

    ``questions`` are those that the run ended with; ``ended`` is its end, once it has come.
    """

    def __init__(self, structured: bool) -> None:
        self._structured = structured
        self._assembler = PartAssembler()
        self._text: dict[str, list[str]] = {}
        self._message: Mapping[str, Any] | None = None
        self._values: dict[str, Any] = {}
        self._steps = 0
        self.questions: list[dict[str, Any]] = []
        self.failure: parts.RunFailed | None = None
        self.ended: parts.RunEnds | None = None

    def add(self, event: Event) -> Iterator[Progress]:
        """Add an event; yield the progress that it makes."""
        for part in self._assembler.parts(event):
            match part:
                case parts.TextDelta():
                    self._text.setdefault(part.message_id, []).append(part.text)
                case parts.MessagesRetracted():
                    for message_id in part.message_ids:
                        self._text.pop(message_id, None)
                case parts.MessageDone():
                    self._message = part.message
                case parts.ToolCallEnd():
                    yield self._progress(f"calls {part.name}")
                case parts.StepDone():
                    self._values |= {name: value for name, value in part.update.items() if name != MESSAGES}
                    yield self._progress(f"{part.node} done")
                case parts.QuestionsAsked():
                    self.questions = part.questions
                case parts.RunFailed():
                    self.failure = part
                case parts.RunEnds():
                    self.ended = part

    def _progress(self, message: str) -> Progress:
        self._steps += 1
        return Progress(self._steps, None, message)

    def result(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of the run, which has ended; ``about`` is its ``_meta``."""
        assert self.ended is not None
        if self.failure is not None:
            return error_result(self.failure.message, about)
        if self.ended.state is not RunState.SUCCESS:
            return error_result(f"The run was {self.ended.state.value} before it had a result.", about)
        content = list(_content(self._message)) if self._message is not None else []
        if not content and self._text:
            content = [_text_block("".join(list(self._text.values())[-1]))]
        if not self._structured:
            return {"content": content, "isError": False, "_meta": dict(about)}
        if not content:
            content = [_text_block(msgspec.json.encode(self._values).decode())]
        return {"content": content, "structuredContent": self._values, "isError": False, "_meta": dict(about)}


def error_result(sentence: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a tool that failed; the client's model reads ``sentence``."""
    return {"content": [_text_block(sentence)], "isError": True, "_meta": dict(about)}


def questions_result(questions: list[dict[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result for a caller who is shown open questions."""
    shown = msgspec.json.encode({"status": "interrupted", "questions": questions}).decode()
    return {"content": [_text_block(shown)], "isError": False, "_meta": dict(about)}


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _content(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a thread's message as content: texts, images, audio, files."""
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield _text_block(content)
        return
    for block in content if isinstance(content, list) else ():
        if isinstance(block, str):
            yield _text_block(block)
        elif isinstance(block, dict) and (found := _block(block)) is not None:
            yield found


def _block(block: Mapping[str, Any]) -> dict[str, Any] | None:
    match block.get("type"):
        case "text" if isinstance(block.get("text"), str):
            return _text_block(block["text"])
        case "image_url":
            image = block.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            return _of_url(url, "image")
        case "image" | "audio" if isinstance(block.get("data") or block.get("base64"), str):
            kind = str(block["type"])
            mime = block.get("mime_type") or block.get("mimeType") or f"{kind}/{'png' if kind == 'image' else 'wav'}"
            return {"type": kind, "data": block.get("data") or block["base64"], "mimeType": mime}
        case "file":
            file = block.get("file")
            url = file.get("file_data") if isinstance(file, dict) else block.get("url")
            return _of_url(url, str(file.get("filename") or "file") if isinstance(file, dict) else "file")
        case _:
            return None


def _of_url(url: Any, name: str) -> dict[str, Any] | None:
    if not isinstance(url, str):
        return None
    match = _DATA_URL.fullmatch(url)
    if match is None:
        return {"type": "resource_link", "uri": url, "name": name}
    kind, data = match[1], match[2]
    if kind.startswith(("image/", "audio/")):
        return {"type": kind.partition("/")[0], "data": data, "mimeType": kind}
    return {"type": "resource", "resource": {"uri": f"file:///{name}", "mimeType": kind, "blob": data}}
