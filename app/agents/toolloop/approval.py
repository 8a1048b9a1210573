"""Which calls a person approves before they run, how they are asked, and what their answers mean."""

from typing import Any

import msgspec

from app.agents.port import interrupt_id
from app.domain.messages import ToolCall
from app.tools.port import ToolClass

ACTIONS = ("approve", "edit", "reject", "respond")

_ALIASES = {"accept": "approve", "ignore": "reject", "response": "respond"}


class Approve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls that wait for a person: of these tools (``*``: of all), and of every tool of these classes."""

    tools: list[str] = []
    classes: list[ToolClass] = []

    def covers(self, name: str, tool_class: ToolClass) -> bool:
        """Whether calls of the tool ``name`` wait."""
        return name in self.tools or "*" in self.tools or tool_class in self.classes


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided: ``args`` to run an edited call with, ``result`` that stands for the tool's own."""

    action: str
    args: dict[str, Any] = {}
    result: Any = None
    reason: str = ""


def approval_id(message_id: str, call: ToolCall) -> str:
    """The id of the question about ``call``: another call, or the same with other arguments, is another question."""
    return interrupt_id("approval", message_id, call.id, call.name, call.args)


def question(call: ToolCall, tool_class: ToolClass, problem: str = "") -> dict[str, Any]:
    """The value of the interrupt; ``problem`` says what was wrong with the answer before."""
    asked: dict[str, Any] = {
        "type": "tool_approval",
        "tool": call.name,
        "args": call.args,
        "call_id": call.id,
        "tool_class": tool_class,
        "actions": list(ACTIONS),
    }
    return {**asked, "problem": problem} if problem else asked


def decide(answer: Any) -> Decision:
    """Read a person's answer. Raises ``ValueError`` for one that says nothing clear: it must not count as a yes.

    ``true``, ``"approve"``, ``{"action": "approve"}``; ``false``, ``"reject"``, ``{"action": "reject", "reason": …}``;
    ``{"action": "edit", "args": {…}}``; ``{"action": "respond", "result": …}``. ``type`` may stand for ``action``, and
    one decision may come as ``{"decisions": […]}``, as the approval forms of agent chat clients send it.
    """
    if isinstance(answer, dict) and isinstance(answer.get("decisions"), list):
        answer = answer["decisions"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, bool):
        return Decision(action="approve" if answer else "reject")
    if isinstance(answer, str):
        answer = {"action": answer}
    if not isinstance(answer, dict):
        raise ValueError(_EXPECTED)  # noqa: TRY004  the answer is at fault, no caller
    named = answer.get("action", answer.get("type"))
    action = _ALIASES.get(named, named) if isinstance(named, str) else None
    if action not in ACTIONS:
        raise ValueError(_EXPECTED)
    reason = answer.get("reason", answer.get("message"))
    return Decision(
        action=action,
        args=_edited(answer) if action == "edit" else {},
        result=answer.get("result", answer.get("args")) if action == "respond" else None,
        reason=reason if isinstance(reason, str) else "",
    )


def _edited(answer: dict[str, Any]) -> dict[str, Any]:
    args = answer.get("args", answer.get("edited_action"))
    if isinstance(args, dict) and isinstance(args.get("args"), dict):  # {"name": …, "args": {…}}
        args = args["args"]
    if not isinstance(args, dict):
        raise ValueError("An edit needs args: the object that the tool is to be called with.")  # noqa: TRY004
    return args


_EXPECTED = f"Answer with an action, one of {', '.join(ACTIONS)}."
