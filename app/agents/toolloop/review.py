"""Calls of which a crash has hidden whether they happened: what their class allows, and how a person decides."""

from typing import Any

import msgspec

from app.agents.port import interrupt_id
from app.domain.messages import ToolCall
from app.tools.port import ToolClass

ACTIONS = ("retry", "done", "failed", "abort")

SAFE_TO_REPEAT = frozenset({ToolClass.READ_ONLY, ToolClass.IDEMPOTENT, ToolClass.TRANSACTIONAL})
"""Reading changes nothing, a key makes a repetition none, and a change of values is committed with its step."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of the call: ``result`` is what the model shall read where it was done or has failed."""

    action: str
    result: Any = None


def review_id(message_id: str, call: ToolCall, attempt: str) -> str:
    """The id of the question about one ``attempt`` of ``call``: an answer never counts for a later attempt."""
    return interrupt_id("review", message_id, call.id, call.name, call.args, attempt)


def review(call: ToolCall, args: dict[str, Any], tool_class: ToolClass, key: str, problem: str) -> dict[str, Any]:
    """The value of the interrupt; ``problem`` says what was wrong with the answer before."""
    asked: dict[str, Any] = {
        "type": "tool_review",
        "tool": call.name,
        "args": args,
        "call_id": call.id,
        "tool_class": tool_class,
        "idempotency_key": key,
        "actions": list(ACTIONS),
    }
    return {**asked, "problem": problem} if problem else asked


def judge(answer: Any) -> Verdict:
    """Read a person's answer, ``{"action": …, "result": …}`` or the action alone. Raises ``ValueError``."""
    if isinstance(answer, str):
        answer = {"action": answer}
    if not isinstance(answer, dict) or answer.get("action") not in ACTIONS:
        raise ValueError(f"Answer with an action, one of {', '.join(ACTIONS)}.")
    return Verdict(action=answer["action"], result=answer.get("result"))
