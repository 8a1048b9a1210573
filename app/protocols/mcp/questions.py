"""Questions of a run as forms of a client, and a client's answers as answers to the questions.

Forms are flat: https://modelcontextprotocol.io/specification/2026-07-28/client/elicitation
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.protocols.mcp.surface import Ask

ELICIT = "elicitation/create"

MAX_MESSAGE = 4000
"""Characters of a question that a form shows."""

_FLAT = {"string", "integer", "number", "boolean"}
_DECISIONS = {"tool_approval": ["approve", "reject"], "tool_review": ["retry", "done", "failed", "abort"]}


def ask_of(question: Mapping[str, Any]) -> Ask:
    """Return the form for ``question``: the schema of its answer if a form can show it, else one text."""
    value = question.get("value")
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, dict) and kind in _DECISIONS:
        properties: dict[str, Any] = {
            "decision": {"type": "string", "title": "Decision", "enum": _DECISIONS[kind]},
            "reason": {"type": "string", "title": "Reason", "description": "Optional; the agent reads it."},
        }
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": ["decision"]}
        return Ask(ELICIT, {"mode": "form", "message": _call_in(value), "requestedSchema": schema})
    expected = question.get("response_schema")
    return Ask(ELICIT, {"mode": "form", "message": _text_of(value), "requestedSchema": _form(expected)})


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


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value[:MAX_MESSAGE] or "The agent asks for an answer."
    if isinstance(value, dict):
        for name in ("question", "message", "prompt", "text"):
            if isinstance(value.get(name), str) and value[name]:
                return str(value[name])[:MAX_MESSAGE]
    return msgspec.json.encode(value).decode()[:MAX_MESSAGE]


def _call_in(value: Mapping[str, Any]) -> str:
    args = msgspec.json.encode(value.get("args")).decode()
    problem = f"\n{value['problem']}" if value.get("problem") else ""
    if value.get("type") == "tool_review":
        return f"Did this call happen? {value.get('tool')} with {args}{problem}"[:MAX_MESSAGE]
    return f"May the agent call {value.get('tool')} with {args}?{problem}"[:MAX_MESSAGE]


class Declined(Exception):
    """The person gave no answer; the question stays open."""


def answer_of(question: Mapping[str, Any], response: Any) -> Any:
    """Return the answer to ``question`` in a client's ``response`` to its form.

    Raises ``Declined`` if there is none, ``ValueError`` for a response of another form.
    """
    if not isinstance(response, Mapping) or response.get("action") not in {"accept", "decline", "cancel"}:
        raise ValueError("Answer with {action: accept, content}, {action: decline} or {action: cancel}.")
    value = question.get("value")
    kind = value.get("type") if isinstance(value, dict) else None
    if response["action"] == "decline" and kind == "tool_approval":
        return {"decisions": [{"type": "reject"}]}
    if response["action"] != "accept":
        raise Declined
    content = response.get("content")
    if not isinstance(content, Mapping):
        raise ValueError("The response has no content.")  # noqa: TRY004  the client's value
    if kind in _DECISIONS:
        return _decision(kind, content)
    expected = question.get("response_schema")
    if isinstance(expected, dict) and _is_form(expected):
        return dict(content)
    if "answer" not in content:
        raise ValueError("content.answer is missing.")
    answer = content["answer"]
    if isinstance(expected, dict) and not _is_flat(expected) and isinstance(answer, str):
        try:
            return msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise ValueError("content.answer must be JSON that fits the schema.") from error
    return answer


def _decision(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    decision, reason = content.get("decision"), content.get("reason")
    if decision not in _DECISIONS[kind]:
        raise ValueError(f"content.decision must be one of {', '.join(_DECISIONS[kind])}.")
    if kind == "tool_review":
        return {"action": decision} | ({"result": reason} if reason else {})
    return {"decisions": [{"type": decision} | ({"message": reason} if isinstance(reason, str) and reason else {})]}
