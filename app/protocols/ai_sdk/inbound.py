"""Messages of a chat as input of a run, or as answers to its questions."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from app.base.errors import Invalid
from app.engine.execution.questions import OpenQuestion
from app.protocols.ai_sdk.structs import UIMessage
from app.protocols.files import file_block
from app.protocols.questions import answers_by_call, approval

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
                yield file_block(url, media_type, str(part.get("filename") or ""))
            case _:
                continue  # steps, sources and data are for display only


class Responded(NamedTuple):
    """What the last message answers: approval requests by the question's id, calls of client tools by their id."""

    approvals: dict[str, dict[str, Any]]
    results: dict[str, Any]

    def answers(self, questions: Sequence[OpenQuestion]) -> dict[str, Any]:
        """Return the answers to the open ``questions``, by id."""
        decided = {
            one.id: approval(
                one.value, bool(self.approvals[one.id].get("approved")), self.approvals[one.id].get("reason")
            )
            for one in questions
            if one.id in self.approvals
        }
        return decided | answers_by_call(questions, self.results)


def responded_in(messages: Sequence[UIMessage]) -> Responded:
    """Return what the last message answers: nothing, unless it is the assistant's."""
    found = Responded({}, {})
    last = messages[-1] if messages else None
    for part in () if last is None or last.role != "assistant" else last.parts:
        asked, call_id = part.get("approval"), str(part.get("toolCallId"))
        match part.get("state"):
            case "approval-responded" if isinstance(asked, dict) and asked.get("id"):
                found.approvals[str(asked["id"])] = asked
            case "output-available":
                found.results[call_id] = {"content": part.get("output"), "status": "success"}
            case "output-error":
                found.results[call_id] = {
                    "content": str(part.get("errorText") or "The tool failed."),
                    "status": "error",
                }
    return found
