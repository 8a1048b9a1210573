"""Which calls a person approves before they run, how they are asked, and what their answers mean.

Calls of which a crash has hidden whether they happened: what their class allows, and how a person decides.
"""

from typing import Any, Literal

import msgspec

from app.agents.port import interrupt_id
from app.agents.tools.port import ToolClass
from app.domain.messages import ToolCall

APPROVAL_ACTIONS = ("approve", "edit", "reject", "respond")

_encode = msgspec.json.Encoder().encode

_ALIASES = {"accept": "approve", "ignore": "reject", "response": "respond"}


class ApprovalPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls that wait for a person: of these tools (``*``: of all), and of every tool of these classes.

    ``by`` tells who may approve them: anyone with the scope, or only another person than the one who began the work.
    """

    tools: list[str] = []
    classes: list[ToolClass] = []
    by: Literal["anyone", "other"] = "anyone"

    def covers(self, name: str, tool_class: ToolClass) -> bool:
        """Whether calls of the tool ``name`` wait."""
        return name in self.tools or "*" in self.tools or tool_class in self.classes


class ApprovalDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided: ``args`` to run an edited call with, ``result`` that stands for the tool's own."""

    action: str
    args: dict[str, Any] = {}
    result: Any = None
    reason: str = ""


def approval_id(message_id: str, call: ToolCall) -> str:
    """The key of the question about ``call``: another call, or the same with other arguments, is another question."""
    return interrupt_id("approval", message_id, call.id, call.name, call.args)


def question(call: ToolCall, tool_class: ToolClass, problem: str = "") -> dict[str, Any]:
    """The value of the interrupt; ``problem`` says what was wrong with the answer before.

    ``action_requests`` and ``review_configs`` are the form of LangChain's ``HITLRequest``, by which front ends know
    an approval and show buttons for it; the other members are this server's own.
    """
    description = f"Tool execution requires approval\n\nTool: {call.name}\nArgs: {_encode(call.args).decode()}"
    asked: dict[str, Any] = {
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
    return {**asked, "problem": problem} if problem else asked


def decide(answer: Any, tool: str) -> ApprovalDecision:
    """Read a person's answer about a call of ``tool``.

    Raises ``ValueError`` for one that says nothing clear: it must not count as a yes.

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
        raise ValueError(_EXPECTED)  # noqa: TRY004  the answer is at fault, no caller
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


REVIEW_ACTIONS = ("retry", "done", "failed", "abort")

SAFE_TO_REPEAT = frozenset({ToolClass.READ_ONLY, ToolClass.IDEMPOTENT, ToolClass.TRANSACTIONAL})
"""Reading changes nothing, a key makes a repetition none, and a change of values is committed with its step."""


class ReviewDecision(msgspec.Struct, frozen=True, kw_only=True):
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
        "actions": list(REVIEW_ACTIONS),
    }
    return {**asked, "problem": problem} if problem else asked


def judge(answer: Any) -> ReviewDecision:
    """Read a person's answer, ``{"action": …, "result": …}`` or the action alone. Raises ``ValueError``."""
    if isinstance(answer, str):
        answer = {"action": answer}
    if not isinstance(answer, dict) or answer.get("action") not in REVIEW_ACTIONS:
        raise ValueError(f"Answer with an action, one of {', '.join(REVIEW_ACTIONS)}.")
    return ReviewDecision(action=answer["action"], result=answer.get("result"))
