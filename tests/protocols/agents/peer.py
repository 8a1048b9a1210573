"""An agent that behaves as the id of an A2A message asks: the scenarios of a2a-tck, and more for our own tests."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from app.agents.function import AIMessage, Context

FILE = "data:text/plain;base64,aGVsbG8="


class Order(msgspec.Struct):
    item: str
    count: int = 1


def message_id(context: Context) -> str:
    """The id of the message that began or answered this run."""
    return str(context.run.metadata.get("a2a", {}).get("messageId", ""))


def said(*blocks: dict[str, Any], **rest: Any) -> AIMessage:
    return AIMessage(content=[*blocks], **rest)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def file(data: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, "filename": "output.txt", "mime_type": "text/plain"}}


async def run(context: Context) -> Any:
    def asks() -> bool:
        return "input-required" in message_id(context)

    asked = 0
    while await context.step(f"asks-{asked}", asks):
        await context.interrupt(f"What now ({asked})?")
        asked += 1
    id_ = message_id(context)
    answers = {
        "tck-artifact-text": said(text("Generated text content")),
        "tck-artifact-file-url": said(file("https://example.com/output.txt")),
        "tck-artifact-file": said(file(FILE)),
        "tck-artifact-data": said({"type": "data", "data": {"key": "value", "count": 42}}),
        "tck-message-response": said(text("Direct message response"), response_metadata={"a2a": "message"}),
        "tck-stream-artifact-text": said(text("Streamed text content")),
        "tck-stream-artifact-file": said(file(FILE)),
        "tck-stream-artifact-chunked": said(text("chunk-1 "), text("chunk-2")),
        "tck-stream-003": said(text("Stream task lifecycle")),
        "tck-stream-ordering-001": said(text("Ordered output")),
        "tck-stream": said(text("Stream hello from TCK")),
    }
    if "reject" in id_ or "fail" in id_:
        raise ValueError("rejected")
    if "slow" in id_ or "resubscribe" in id_:
        await asyncio.sleep(4)
    return next((answer for prefix, answer in answers.items() if id_.startswith(prefix)), "Hello from TCK")


async def order(context: Context, wanted: Order) -> str:
    return f"{wanted.count} of {wanted.item}"


async def helper(context: Context) -> Any:
    words = str(context.messages[-1].content)
    verb, _, rest = words.partition(" ")
    if verb == "ask":
        first, second = await context.interrupt("Which colour?"), await context.interrupt("Which size?")
        return f"{first} and {second}"
    if verb == "until":
        while not Path(rest).exists():  # noqa: ASYNC110, ASYNC240  a file that a test makes
            await asyncio.sleep(0.05)
    if verb == "fail":
        raise ValueError("rejected")
    return f"did {words}"
