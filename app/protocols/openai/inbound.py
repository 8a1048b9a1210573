"""Requests for completions as input of a run."""

from typing import Any

from app.base import json_scan
from app.base.errors import Invalid
from app.protocols.openai.structs import ChatMessage

ROLES = {"system": "system", "developer": "system", "user": "human", "assistant": "ai", "tool": "tool"}
"""Type of a thread's message by role."""


def message_of(message: ChatMessage, at: int) -> dict[str, Any]:
    """Return ``message``, number ``at`` of its request, as a thread's message. Raises ``Invalid``."""
    kind = ROLES.get(message.role)
    if kind is None:
        known = ", ".join(ROLES)
        raise Invalid(
            f"messages[{at}].role must be one of {known}.", ((f"/messages/{at}/role", "is not a known role"),)
        )
    made: dict[str, Any] = {"type": kind, "content": message.content or ""}
    if message.name:
        made["name"] = message.name
    if kind == "tool":
        if not message.tool_call_id:
            raise Invalid(
                f"messages[{at}] answers no call: set tool_call_id.", ((f"/messages/{at}/tool_call_id", "is missing"),)
            )
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [_call(one.id, one.function.name, one.function.arguments) for one in message.tool_calls]
    return made


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    try:
        args = json_scan.parse(arguments or "{}", "The text of a call's arguments", dict[str, Any])
    except Invalid:
        args = {}
    return {"type": "tool_call", "id": call_id, "name": name, "args": args}
