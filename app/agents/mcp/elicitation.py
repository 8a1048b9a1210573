"""Questions of MCP servers to a person (elicitation): as our questions, and our answers in the protocol's form.

Source: https://modelcontextprotocol.io/specification/2026-07-28/client/elicitation.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from app.agents.tools.port import NeedsAnswer, ToolContext
from app.agents.tools.remote import ServerError

METHOD = "elicitation/create"
ACTIONS = ("accept", "decline", "cancel")
MAX_QUESTIONS = 16
MAX_QUESTION_BYTES = 64 * 1024
MAX_MESSAGE_LENGTH = 4_000

AN_ACTION: dict[str, Any] = {
    "type": "object",
    "properties": {"action": {"type": "string", "enum": list(ACTIONS)}},
    "required": ["action"],
}
"""JSON Schema of an answer without a form."""

_encode = msgspec.json.Encoder(order="sorted").encode


def answers_to(requests: Mapping[str, Any], server: str, tool: str, part: str, context: ToolContext) -> dict[str, Any]:
    """Return a person's answers to the ``requests`` of a server, by their keys; ``part`` of the call asks them.

    Raises ``NeedsAnswer`` if some are unanswered, and ``ServerError`` for requests that are no questions.
    """
    if len(requests) > MAX_QUESTIONS or len(_encode(requests)) > MAX_QUESTION_BYTES:
        raise ServerError(f"it asks more than {MAX_QUESTIONS} questions or {MAX_QUESTION_BYTES} bytes at once")
    answers: dict[str, Any] = {}
    unanswered: NeedsAnswer | None = None
    for key, request in requests.items():
        value, expects = _question(request, server, tool, context.call_id)
        try:
            given = context.interrupt(value, expects, _name_of(f"{part} {key}", request))
            answers[key] = _answer(given, value.get("requested_schema"))
        except NeedsAnswer as error:
            unanswered = error
    if unanswered is not None:
        raise unanswered
    return answers


def ask_to_sign_in(url: str, server: str, tool: str, number: int, context: ToolContext) -> bool:
    """Ask a person to sign in at ``url``, for the time ``number`` of a call; return whether they say that they have.

    Raises ``NeedsAnswer`` without an answer.
    """
    value = {
        "type": "auth_required",
        "server": server,
        "tool": tool,
        "call_id": context.call_id,
        "message": f"Sign in to {server} to go on: {url}",
        "url": url,
        "actions": list(ACTIONS),
    }
    answer = _answer(context.interrupt(value, AN_ACTION, f"mcp sign-in {number}"))
    return bool(answer["action"] == "accept")


def _question(request: Any, server: str, tool: str, call_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the value of the interrupt and the JSON Schema of its answer."""
    params = request.get("params") if isinstance(request, Mapping) else None
    if not isinstance(params, Mapping) or request.get("method") != METHOD:
        method = request.get("method") if isinstance(request, Mapping) else request
        raise ServerError(f"it asks for {str(method)[:64]!r}, which is not offered to servers")
    value: dict[str, Any] = {
        "type": "elicitation",
        "server": server,
        "tool": tool,
        "call_id": call_id,
        "message": str(params.get("message", ""))[:MAX_MESSAGE_LENGTH],
        "actions": list(ACTIONS),
    }
    if params.get("mode", "form") == "url":
        url = str(params.get("url", ""))
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ServerError("it sends a person to an address that is not http or https")
        return {**value, "url": url}, AN_ACTION
    schema = params.get("requestedSchema")
    if not isinstance(schema, Mapping):
        raise ServerError("its question has no schema")
    content = _without_defaults(schema)
    accepted = {"action": {"const": "accept"}, "content": content}
    required = ["action", "content"] if content.get("required") else ["action"]
    expects = {
        "anyOf": [
            {"type": "object", "properties": accepted, "required": required},
            {"type": "object", "properties": {"action": {"enum": ["decline", "cancel"]}}, "required": ["action"]},
        ]
    }
    return {**value, "requested_schema": dict(schema)}, expects


def _defaults_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of a form's fields (SEP-1034)."""
    fields = schema.get("properties")
    given = fields.items() if isinstance(fields, Mapping) else ()
    return {name: field["default"] for name, field in given if isinstance(field, Mapping) and "default" in field}


def _without_defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of what a person must answer: a field that has a default may be left out."""
    required, defaults = schema.get("required"), _defaults_of(schema)
    if not isinstance(required, list) or not defaults:
        return dict(schema)
    return {**schema, "required": [name for name in required if name not in defaults]}


def _answer(answer: Any, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an answer as an ``ElicitResult``, with the defaults of the form ``schema`` for what it leaves out.

    An answer in no known form cancels the question.
    """
    action = answer.get("action") if isinstance(answer, Mapping) else None
    if action not in ACTIONS:
        return {"action": "cancel"}
    content = answer.get("content")
    given = dict(content) if isinstance(content, Mapping) else {}
    if action == "accept" and schema is not None:
        return {"action": action, "content": {**_defaults_of(schema), **given}}
    if action == "accept" and given:
        return {"action": action, "content": given}
    return {"action": action}


def _name_of(at: str, request: Any) -> str:
    """Return the name of a question: its content is part of it, so that no answer serves another question."""
    return f"mcp {at} {hashlib.blake2b(_encode(request), digest_size=16).hexdigest()}"
