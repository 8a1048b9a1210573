"""Compaction: a conversation in short, as one item with which the input of later requests begins.

The item holds the summary itself, so it is no secret and needs no thread: any server reads it.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import ModelOptions
from app.agents.tool_loop.summary_prompt import summary_message, summary_request
from app.base import json_scan
from app.base.errors import BadRequest, Invalid
from app.domain.messages import Message
from app.engine.structs import RunCreate
from app.protocols.gateway import OBSERVABLE
from app.protocols.openai.responses.items import Item
from app.providers.llm.port import ToolChoice

PREFIX = "agent-service.1."
"""Begins the content of an item, before the summary in Base64."""

SUMMARY_TOKENS = 2_000
MESSAGE_TOKENS = 4_000
"""Limits of a summary, and of each message that the model reads for it."""

MAX_SUMMARY_BYTES = 64 * 1024
"""Bytes of a summary, and of all summaries in one request."""

_TOO_LONG = f"is too long: the summaries of a request have at most {MAX_SUMMARY_BYTES:,} bytes"
_MAX_CONTENT_LENGTH = len(PREFIX) + -(-MAX_SUMMARY_BYTES // 3) * 4


def summarizing_run(model: str, messages: Sequence[Message], protocol: str) -> RunCreate:
    """Return the run of an agent, without tools, whose answer is the summary of ``messages``."""
    request = summary_request("", messages, MESSAGE_TOKENS, SUMMARY_TOKENS)
    return RunCreate(
        assistant_id=model,
        input={"messages": msgspec.to_builtins(request.messages)},
        stream_mode=OBSERVABLE,
        metadata={"protocol": protocol},
        model_options=ModelOptions(tool_choice=ToolChoice(mode="none"), instructions=request.instructions),
    )


def compaction(run_id: UUID, response: dict[str, Any]) -> dict[str, Any]:
    """Return the compaction that the ``response`` of a summarizing run makes."""
    summary = "\n\n".join(
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    )
    cut = summary.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore").encode()
    content = PREFIX + base64.urlsafe_b64encode(cut).decode()
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": response["created_at"],
        "output": [{"type": "compaction", "id": f"cmp_{run_id.hex}", "encrypted_content": content}],
        "usage": response["usage"],
    }


def compacted_message(item: Item, at: str, room: int) -> tuple[dict[str, Any], int]:
    """Return the message that a compaction is for a model, and how many bytes its summary has, at most ``room``.

    No scan has seen the summary, since it comes encoded: it has to follow the rules of a body. Raises ``Invalid`` for
    one that does not, and for a compaction of another server.
    """
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content.startswith(PREFIX):
        raise _invalid(at, "is not a compaction of this server: send the messages")
    if len(content) > _MAX_CONTENT_LENGTH:
        raise _invalid(at, _TOO_LONG)
    try:
        raw = base64.b64decode(content.removeprefix(PREFIX), b"-_", validate=True)
        summary = raw.decode()
        json_scan.check(msgspec.json.encode(summary), "The summary")
    except (binascii.Error, ValueError):
        raise _invalid(at, "is not a compaction of this server: send the messages") from None
    except BadRequest as error:
        raise _invalid(at, f"is refused: {error}") from error
    if len(raw) > room:
        raise _invalid(at, _TOO_LONG)
    return {"type": "human", "content": summary_message(summary).content}, len(raw)


def _invalid(at: str, words: str) -> Invalid:
    words = words.removesuffix(".")
    return Invalid(f"{at.replace('/', '.')} {words}.", ((f"/{at}/encrypted_content", words),))
