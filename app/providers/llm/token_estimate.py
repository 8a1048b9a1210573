"""Estimate tokens of messages without vendor tables, erring on the high side.

Four characters per token in ASCII; three bytes of UTF-8 otherwise, i.e. one token per Chinese or Japanese character.
The error is smaller than the difference between tokenizers.
"""

from typing import Any

import msgspec

from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage

MESSAGE_OVERHEAD = 4
"""Tokens of a message in addition to its content: role and delimiters."""
IMAGE_TOKENS = 1_000
"""Tokens of a block that is not text, whatever its size: vendors count images by pixels."""

_encode = msgspec.json.Encoder().encode


def estimate_text_tokens(text: str) -> int:
    """Estimate the tokens of ``text``."""
    return -(-len(text) // 4) if text.isascii() else -(-len(text.encode(errors="replace")) // 3)


def estimate_json_tokens(value: Any) -> int:
    """Estimate the tokens of a value that is sent as JSON."""
    return -(-len(_encode(value)) // 4)


def estimate_tokens(message: Message) -> int:
    """Estimate the tokens of ``message`` in a request."""
    weight = MESSAGE_OVERHEAD
    if isinstance(message.content, str):
        weight += estimate_text_tokens(message.content)
    else:
        for block in message.content:
            text = block.get("text") if block.get("type") == "text" else None
            weight += estimate_text_tokens(text) if isinstance(text, str) else IMAGE_TOKENS
    if isinstance(message, AIMessage):
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        for call in calls:
            weight += MESSAGE_OVERHEAD + estimate_text_tokens(call.name) + estimate_json_tokens(call.args)
    elif isinstance(message, ToolMessage):
        weight += MESSAGE_OVERHEAD
    return weight


def shorten(text: str, tokens: int) -> str:
    """Shorten ``text`` to at most ``tokens`` estimated tokens, keeping its beginning and its end."""
    weight = estimate_text_tokens(text)
    kept, short = len(text) * tokens // max(1, weight), text
    while estimate_text_tokens(short) > tokens and kept > 0:
        tail = kept // 3
        short = f"{text[: kept - tail]} [...] {text[len(text) - tail :]}"
        kept = kept * 9 // 10
    return short
