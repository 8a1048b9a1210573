"""Questions of a run as forms of a client, and a client's answers as answers to the questions.

Forms are flat: https://modelcontextprotocol.io/specification/2026-07-28/client/elicitation
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.agents.port import QuestionKind
from app.base import json_scan
from app.base.errors import BadRequest, Invalid
from app.protocols.mcp.surface import Ask
from app.protocols.questions import approval, calls_of, kind_of, words_of

ELICIT = "elicitation/create"

MAX_MESSAGE = 4000
"""Characters of a question that a form shows."""

_FLAT = {"string", "integer", "number", "boolean"}
_DECISIONS: Mapping[QuestionKind, Sequence[str]] = {
    "approval": ("approve", "reject"),
    "review": ("retry", "done", "failed", "abort"),
}
"""What a person can choose, by the kind of the question; for several calls at once, one decision counts for all."""


def ask_of(question: Mapping[str, Any]) -> Ask:
    """Return the form for ``question``: the schema of its answer if a form can show it, else one text."""
    value = question.get("value")
    kind = kind_of(value)
    if kind in _DECISIONS:
        properties: dict[str, Any] = {
            "decision": {"type": "string", "title": "Decision", "enum": _DECISIONS[kind]},
            "reason": {"type": "string", "title": "Reason", "description": "Optional; the agent reads it."},
        }
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": ["decision"]}
        return Ask(ELICIT, {"mode": "form", "message": _message(value), "requestedSchema": schema})
    schema = _elicited(value) or _form(question.get("response_schema"))
    return Ask(ELICIT, {"mode": "form", "message": _message(value), "requestedSchema": schema})


def _elicited(value: Any) -> dict[str, Any] | None:
    """Return the form of a question that another MCP server asks, through one of its tools."""
    form = value.get("requested_schema") if isinstance(value, dict) and value.get("type") == "elicitation" else None
    return form if isinstance(form, dict) and _is_form(form) else None


def _form(expected: Any) -> dict[str, Any]:
    if isinstance(expected, dict) and _is_form(expected):
        return {name: expected[name] for name in ("type", "properties", "required") if name in expected}
    if isinstance(expected, dict) and _is_flat(expected):
        return {"type": "object", "properties": {"answer": expected}, "required": ["answer"]}
    answer: dict[str, Any] = {"type": "string", "title": "Answer"}
    if isinstance(expected, dict):
        answer["description"] = f"JSON that fits the schema {msgspec.json.encode(expected).decode()[:1000]}"
    return {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}


def _is_form(schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties")
    return (
        schema.get("type") == "object"
        and isinstance(properties, dict)
        and bool(properties)
        and all(isinstance(one, dict) and _is_flat(one) for one in properties.values())
    )


def _is_flat(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") in _FLAT and "$ref" not in schema


def _message(value: Any) -> str:
    calls = calls_of(value) if kind_of(value) == "approval" else ()
    if calls:
        asked = "\n".join(f"May the agent call {call.name} with {call.arguments}?" for call in calls)
        problem = f"\n{value['problem']}" if value.get("problem") else ""
        return f"{asked}{problem}"[:MAX_MESSAGE]
    if value == "":
        return "The agent asks for an answer."
    return (words_of(value) or msgspec.json.encode(value).decode())[:MAX_MESSAGE]


class Declined(Exception):
    """The person gave no answer; the question stays open."""


def answer_of(question: Mapping[str, Any], response: Any) -> Any:
    """Return the answer to ``question`` in a client's ``response`` to its form.

    Raises ``Declined`` if there is none, ``ValueError`` for a response of another form.
    """
    if not isinstance(response, Mapping) or response.get("action") not in {"accept", "decline", "cancel"}:
        raise ValueError("Answer with {action: accept, content}, {action: decline} or {action: cancel}.")
    value = question.get("value")
    kind = kind_of(value)
    if response["action"] == "decline" and kind == "approval":
        return approval(value, False)
    if response["action"] == "decline" and _elicited(value):
        return {"action": "decline"}
    if response["action"] != "accept":
        raise Declined
    content = response.get("content")
    if not isinstance(content, Mapping):
        raise ValueError("The response has no content.")  # noqa: TRY004  the client's value
    if kind in _DECISIONS:
        return _decision(value, kind, content)
    if _elicited(value):
        return {"action": "accept", "content": dict(content)}
    expected = question.get("response_schema")
    if isinstance(expected, dict) and _is_form(expected):
        return dict(content)
    if "answer" not in content:
        raise ValueError("content.answer is missing.")
    answer = content["answer"]
    if isinstance(expected, dict) and not _is_flat(expected) and isinstance(answer, str):
        try:
            return json_scan.parse(answer, "The answer")
        except (BadRequest, Invalid) as error:
            raise ValueError("content.answer must be JSON that fits the schema.") from error
    return answer


def _decision(value: Any, kind: QuestionKind, content: Mapping[str, Any]) -> dict[str, Any]:
    decision, reason = content.get("decision"), content.get("reason")
    if decision not in _DECISIONS[kind]:
        raise ValueError(f"content.decision must be one of {', '.join(_DECISIONS[kind])}.")
    if kind == "review":
        return {"action": decision} | ({"result": reason} if reason else {})
    return approval(value, decision == "approve", reason)
