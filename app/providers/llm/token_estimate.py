"""How long messages are, in tokens: an estimate that needs no vendor's tables and errs on the long side.

Four characters a token in ASCII; three bytes of UTF-8 elsewhere, which is a token for each Chinese or Japanese
character. Tokenizers differ by more than this does.
"""

from typing import Any

import msgspec

from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage

ENVELOPE = 4
"""What a message takes beside its content: its role and its borders."""
PICTURE = 1_000
"""A block that is no text, whatever its bytes: vendors count pictures by their pixels."""

_encode = msgspec.json.Encoder().encode


def weight_of_text(text: str) -> int:
    """About how many tokens ``text`` has."""
    return -(-len(text) // 4) if text.isascii() else -(-len(text.encode(errors="replace")) // 3)


def weight_of_json(value: Any) -> int:
    """The same for a value that is sent as JSON."""
    return -(-len(_encode(value)) // 4)


def weight_of(message: Message) -> int:
    """About how many tokens ``message`` takes where a model is asked."""
    weight = ENVELOPE
    if isinstance(message.content, str):
        weight += weight_of_text(message.content)
    else:
        for block in message.content:
            text = block.get("text") if block.get("type") == "text" else None
            weight += weight_of_text(text) if isinstance(text, str) else PICTURE
    if isinstance(message, AIMessage):
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        for call in calls:
            weight += ENVELOPE + weight_of_text(call.name) + weight_of_json(call.args)
    elif isinstance(message, ToolMessage):
        weight += ENVELOPE
    return weight


def shortened(text: str, tokens: int) -> str:
    """``text`` in at most ``tokens``, as weighed here: its beginning and its end, where it is longer."""
    weight = weight_of_text(text)
    kept, short = len(text) * tokens // max(1, weight), text
    while weight_of_text(short) > tokens and kept > 0:
        tail = kept // 3
        short = f"{text[: kept - tail]} [...] {text[len(text) - tail :]}"
        kept = kept * 9 // 10
    return short
