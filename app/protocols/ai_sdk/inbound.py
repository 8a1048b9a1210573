"""Messages of a chat as input of a run, or as answers to its questions."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.base.errors import Invalid
from app.protocols.ai_sdk.structs import UIMessage

TYPES = {"user": "human", "system": "system"}


def message_of(message: UIMessage, at: int) -> dict[str, Any]:
    """Return ``message``, number ``at`` of its request, as a thread's message under the same id. Raises ``Invalid``."""
    blocks = list(_blocks(message, at))
    if not blocks:
        raise Invalid(f"messages[{at}] is empty: give it a text or a file.", ((f"/messages/{at}/parts", "is empty"),))
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    content = "".join(texts) if len(texts) == len(blocks) else blocks
    return {"type": TYPES[message.role], "id": message.id, "content": content}


def _blocks(message: UIMessage, at: int) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(message.parts):
        match part.get("type"):
            case "text":
                if part.get("text"):
                    yield {"type": "text", "text": str(part["text"])}
            case "file":
                url, media_type = part.get("url"), str(part.get("mediaType") or "")
                if not isinstance(url, str):
                    pointer = f"/messages/{at}/parts/{number}/url"
                    raise Invalid(f"A file in messages[{at}] has no url.", ((pointer, "is missing"),))
                if media_type.startswith("image/"):
                    yield {"type": "image_url", "image_url": {"url": url}}
                else:
                    name = part.get("filename")
                    yield {"type": "file", "file": {"file_data": url, **({"filename": name} if name else {})}}
            case _:
                continue  # steps, sources and data are for display only


def answers_in(messages: Sequence[UIMessage]) -> dict[str, Any]:
    """Return the answers to approval requests in the last message, by the question's id."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant":
        return {}
    answers: dict[str, Any] = {}
    for part in last.parts:
        approval = part.get("approval")
        if part.get("state") == "approval-responded" and isinstance(approval, dict) and approval.get("id"):
            approved, reason = bool(approval.get("approved")), approval.get("reason")
            decision: dict[str, Any] = {"type": "approve" if approved else "reject"}
            answers[str(approval["id"])] = {"decisions": [decision | ({"message": reason} if reason else {})]}
    return answers
