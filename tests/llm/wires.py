"""Build streams in the formats of OpenAI and Anthropic from the answers they should contain."""

import itertools
import json
from typing import Any

import msgspec

OPENAI, ANTHROPIC = "openai", "anthropic"


class Say(msgspec.Struct, kw_only=True):
    """A valid answer. ``calls`` are (name, JSON text of the arguments); ``ids`` replace the calls' own ids."""

    text: str = "Hello there"
    reasoning: str = ""
    calls: list[tuple[str, str]] = []
    ids: list[str] = []
    piece: int | None = None


def events(vendor: str, say: Say) -> list[bytes]:
    """Return the answer ``say`` as events in a vendor's format."""
    return _openai_events(say) if vendor == OPENAI else _anthropic_events(say)


def opening(vendor: str) -> bytes:
    """Return the bytes before the first text."""
    return events(vendor, Say(text=""))[0] + (_block(0, {"type": "text", "text": ""}) if vendor == ANTHROPIC else b"")


def text_event(vendor: str, text: str) -> bytes:
    """Return one text delta."""
    if vendor == OPENAI:
        return _chunk({"content": text})
    return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def call_events(vendor: str, calls: list[tuple[str | None, str | None, str]]) -> bytes:
    """Return calls given as (id, name, arguments), each as one delta; None omits a member."""
    parts = []
    for index, (identity, name, arguments) in enumerate(calls):
        if vendor == OPENAI:
            function = {"arguments": arguments} | ({} if name is None else {"name": name})
            part = {"index": index, "function": function} | ({} if identity is None else {"id": identity})
            parts.append(_chunk({"tool_calls": [part]}))
        else:
            block = {"type": "tool_use", "input": {}} | ({} if identity is None else {"id": identity})
            parts.append(_block(index, block | ({} if name is None else {"name": name})))
            delta = {"type": "input_json_delta", "partial_json": arguments}
            parts.append(_event("content_block_delta", index=index, delta=delta))
    return b"".join(parts)


def closing(vendor: str, reason: str = "") -> bytes:
    """Return the bytes after the last delta."""
    if vendor == OPENAI:
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        return _chunk({}, reason or "stop") + _data({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    delta = {"stop_reason": reason or "end_turn"}
    return _event("message_delta", delta=delta, usage={"output_tokens": 2}) + _event("message_stop")


def _openai_events(say: Say) -> list[bytes]:
    parts = [_chunk({"role": "assistant", "content": ""})]
    parts += [_chunk({"reasoning_content": word}) for word in _words(say.reasoning)]
    parts += [_chunk({"content": word}) for word in _words(say.text)]
    for index, (name, arguments) in enumerate(say.calls):
        identity = say.ids[index] if say.ids else f"call_{index}"
        head = {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": ""}}
        parts.append(_chunk({"tool_calls": [head]}))
        parts += [
            _chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for piece in _thirds(arguments)
        ]
    return [*parts, closing(OPENAI, "tool_calls" if say.calls else "stop")]


def _anthropic_events(say: Say) -> list[bytes]:
    usage = {"input_tokens": 7, "output_tokens": 1}
    parts = [_event("message_start", message={"id": "msg_1", "role": "assistant", "content": [], "usage": usage})]
    blocks = itertools.count()
    for kind, member, text in (("thinking", "thinking", say.reasoning), ("text", "text", say.text)):
        if text:
            index = next(blocks)
            parts.append(_block(index, {"type": kind, member: ""}))
            parts += [
                _event("content_block_delta", index=index, delta={"type": f"{kind}_delta", member: word})
                for word in _words(text)
            ]
            parts.append(_event("content_block_stop", index=index))
    parts.append(_event("ping"))
    for place, (name, arguments) in enumerate(say.calls):
        index = next(blocks)
        identity = say.ids[place] if say.ids else f"call_{place}"
        parts.append(_block(index, {"type": "tool_use", "id": identity, "name": name, "input": {}}))
        parts += [
            _event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece})
            for piece in _thirds(arguments)
        ]
        parts.append(_event("content_block_stop", index=index))
    return [*parts, closing(ANTHROPIC, "tool_use" if say.calls else "end_turn")]


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [word for word in words[-1:] if word]


def _thirds(text: str) -> list[str]:
    size = max(1, len(text) // 3)
    return [text[start : start + size] for start in range(0, len(text), size)]


def _data(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "fake", "choices": [choice]})


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **members})


def _block(index: int, block: dict[str, Any]) -> bytes:
    return _event("content_block_start", index=index, content_block=block)
