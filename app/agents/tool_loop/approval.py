"""Human approval of tool calls before they run, and human review of calls that a crash left unresolved."""

from typing import Any, Literal

import msgspec

from app.agents.port import interrupt_id
from app.agents.tools.port import ToolClass
from app.domain.messages import ToolCall

APPROVAL_ACTIONS = ("approve", "edit", "reject", "respond")

_encode = msgspec.json.Encoder().encode

_ALIASES = {"accept": "approve", "ignore": "reject", "response": "respond"}

REVIEW_ACTIONS = ("retry", "done", "failed", "abort")


class ApprovalPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which calls need approval: those of these ``tools`` (with ``*`` at the end: all whose names begin so), and of
    every tool of these ``classes``.

    ``by``: who may approve, anyone with the scope, or only a person other than the one who started the work.
    """

    tools: list[str] = []
    classes: list[ToolClass] = []
    by: Literal["anyone", "other"] = "anyone"

    def covers(self, name: str, tool_class: ToolClass) -> bool:
        """Whether calls of the tool ``name`` need approval."""
        return tool_class in self.classes or any(
            name.startswith(one[:-1]) if one.endswith("*") else name == one for one in self.tools
        )


class ApprovalDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A person's decision: ``args`` of an edited call, ``result`` in place of the tool's own."""

    action: str
    args: dict[str, Any] = {}
    result: Any = None
    reason: str = ""


def approval_id(message_id: str, call: ToolCall) -> str:
    """Return the key of the approval of ``call``; different arguments give a different key."""
    return interrupt_id("approval", message_id, call.id, call.name, call.args)


def approval_request(call: ToolCall, tool_class: ToolClass, problem: str = "") -> dict[str, Any]:
    """Build the value of the approval interrupt; ``problem`` says what was wrong with the previous answer.

    ``action_requests`` and ``review_configs`` follow LangChain's ``HITLRequest``, so that front ends recognise an
    approval and show buttons; the other members are this server's own.
    """
    description = f"Tool execution requires approval\n\nTool: {call.name}\nArgs: {_encode(call.args).decode()}"
    value: dict[str, Any] = {
        "action_requests": [
            {
                "name": call.name,
                "args": call.args,
                "description": f"{description}\n\nThe last answer did not count: {problem}" if problem else description,
            }
        ],
        "review_configs": [{"action_name": call.name, "allowed_decisions": list(APPROVAL_ACTIONS)}],
        "type": "tool_approval",
        "tool": call.name,
        "args": call.args,
        "call_id": call.id,
        "tool_class": tool_class,
        "actions": list(APPROVAL_ACTIONS),
    }
    return {**value, "problem": problem} if problem else value


def read_decision(answer: Any, tool: str) -> ApprovalDecision:
    """Parse a person's answer about a call of ``tool``.

    Raises ``ValueError`` if the answer is ambiguous: it must not count as approval. Accepted forms:

    ``true``, ``"approve"``, ``{"action": "approve"}``; ``false``, ``"reject"``, ``{"action": "reject", "reason": …}``;
    ``{"action": "edit", "args": {…}}``; ``{"action": "respond", "result": …}``. Or LangChain's ``HITLResponse``:
    ``{"decisions": [{"type": "approve"}]}``, with ``edited_action`` for an edit and ``message`` for a rejection or a
    response.
    """
    if isinstance(answer, dict) and isinstance(answer.get("decisions"), list):
        answer = answer["decisions"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, bool):
        return ApprovalDecision(action="approve" if answer else "reject")
    if isinstance(answer, str):
        answer = {"action": answer}
    if not isinstance(answer, dict):
        raise ValueError(_EXPECTED)  # noqa: TRY004  the answer is invalid, not the caller's argument
    named = answer.get("action", answer.get("type"))
    action = _ALIASES.get(named, named) if isinstance(named, str) else None
    if action not in APPROVAL_ACTIONS:
        raise ValueError(_EXPECTED)
    reason = answer.get("reason", answer.get("message"))
    return ApprovalDecision(
        action=action,
        args=_edited(answer, tool) if action == "edit" else {},
        result=_response(answer) if action == "respond" else None,
        reason=reason if isinstance(reason, str) else "",
    )


def _response(answer: dict[str, Any]) -> Any:
    return next((answer[name] for name in ("result", "args", "message") if name in answer), None)


def _edited(answer: dict[str, Any], tool: str) -> dict[str, Any]:
    args = answer.get("edited_action", answer.get("args"))
    if isinstance(args, dict) and isinstance(args.get("args"), dict):  # {"name": …, "args": {…}}
        if args.get("name", tool) != tool:
            raise ValueError(f"An edit changes the arguments of {tool!r}: it cannot call another tool.")
        args = args["args"]
    if not isinstance(args, dict):
        raise ValueError("An edit needs args: the object that the tool is to be called with.")  # noqa: TRY004
    return args


_EXPECTED = f"Answer with an action, one of {', '.join(APPROVAL_ACTIONS)}."


class ReviewDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A person's verdict on an unresolved call: ``result`` is shown to the model if it was done or has failed."""

    action: str
    result: Any = None


def review_id(message_id: str, call: ToolCall, attempt: str) -> str:
    """Return the key of the review of one ``attempt`` of ``call``: an answer never applies to a later attempt."""
    return interrupt_id("review", message_id, call.id, call.name, call.args, attempt)


def review_request(
    call: ToolCall, args: dict[str, Any], tool_class: ToolClass, key: str, problem: str
) -> dict[str, Any]:
    """Build the value of the review interrupt; ``problem`` says what was wrong with the previous answer."""
    value: dict[str, Any] = {
        "type": "tool_review",
        "tool": call.name,
        "args": args,
        "call_id": call.id,
        "tool_class": tool_class,
        "idempotency_key": key,
        "actions": list(REVIEW_ACTIONS),
    }
    return {**value, "problem": problem} if problem else value


def read_review(answer: Any) -> ReviewDecision:
    """Parse a person's answer, ``{"action": …, "result": …}`` or the action alone. Raises ``ValueError``."""
    if isinstance(answer, str):
        answer = {"action": answer}
    if not isinstance(answer, dict) or answer.get("action") not in REVIEW_ACTIONS:
        raise ValueError(f"Answer with an action, one of {', '.join(REVIEW_ACTIONS)}.")
    return ReviewDecision(action=answer["action"], result=answer.get("result"))
