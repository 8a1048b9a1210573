"""Questions of a run on every wire: what they ask, in which words, and the answers that decide them.

Clients see a question as ``{"id", "value", "response_schema"}``. Its value comes from an agent's code and may be any
JSON. Three forms are known: a tool call that waits for approval (ours, or LangChain's ``action_requests``, which may
ask about several), a call whose outcome a person reviews, and a call of a client's tool. Any other answer reaches the
agent as it was sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.agents.port import QuestionKind
from app.agents.tool_loop.client_tools import CLIENT_TOOL_CALL
from app.engine.execution.questions import OpenQuestion

WORDS = ("description", "question", "message", "prompt", "text", "problem")
"""Members of a value that say what is asked, the best first."""

_WITH_ADDRESS = ("elicitation", "auth_required")
"""Types of questions whose ``url`` a person opens."""
_ABOUT_A_CALL = ("tool_approval", "tool_review", CLIENT_TOOL_CALL)
_APPROVING = (True, "approve", "accept", "edit", "retry")
_NO_QUESTION = "0" * 32

_encode = msgspec.json.Encoder().encode


class AskedCall(NamedTuple):
    """A tool call that a question is about. ``args`` is text if the model sent no JSON object; an id may be empty."""

    name: str
    args: Any
    call_id: str

    @property
    def arguments(self) -> str:
        """The arguments as JSON text."""
        return self.args if isinstance(self.args, str) else _encode(self.args).decode()


def kind_of(value: Any) -> QuestionKind:
    """Return what a question with ``value`` is: a request for approval, a review, or any other one."""
    if not isinstance(value, dict):
        return "question"
    if value.get("type") == "tool_review":
        return "review"
    return "approval" if value.get("type") == "tool_approval" or "action_requests" in value else "question"


def is_sign_in(value: Any) -> bool:
    """Whether a question asks a person to sign in somewhere."""
    return isinstance(value, dict) and value.get("type") == "auth_required"


def calls_of(value: Any) -> Sequence[AskedCall]:
    """Return the tool calls that a question is about."""
    if not isinstance(value, dict):
        return ()
    if isinstance(value.get("tool"), str) and ("args" in value or value.get("type") in _ABOUT_A_CALL):
        call_id = value.get("call_id")
        return (AskedCall(value["tool"], value.get("args", {}), call_id if isinstance(call_id, str) else ""),)
    return [
        AskedCall(one["name"], one.get("args") or {}, "")
        for one in _requests_in(value)
        if isinstance(one.get("name"), str)
    ]


def _requests_in(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    requests = value.get("action_requests")
    return [one for one in requests if isinstance(one, dict)] if isinstance(requests, list) else []


def client_call_id(value: Any) -> str | None:
    """Return the id of the call of a client's tool that a question is; None for any other question."""
    if not isinstance(value, dict) or value.get("type") != CLIENT_TOOL_CALL:
        return None
    call_id = value.get("call_id")
    return call_id if isinstance(call_id, str) else None


def words_of(value: Any) -> str:
    """Return a question in words for the person who answers; empty if its value has none."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    if value.get("type") == "tool_review":
        call = next(iter(calls_of(value)), AskedCall("a tool", {}, ""))
        problem = f"\n{value['problem']}" if value.get("problem") else ""
        return f"Did this call happen? {call.name} with {call.arguments}{problem}"
    said = [_first_words(one) for one in _requests_in(value)]
    words = "\n\n".join(one for one in said if one) or _first_words(value)
    url = value.get("url")
    if value.get("type") in _WITH_ADDRESS and isinstance(url, str) and url not in words:
        words = f"{words}\n{url}"
    return words


def _first_words(members: Mapping[str, Any]) -> str:
    texts = [members.get(name) for name in WORDS]
    return next((text for text in texts if isinstance(text, str) and text), "")


def approval(value: Any, approved: bool, reason: Any = None) -> dict[str, Any]:
    """Return the answer that approves, or rejects, every call that a question asks about.

    It has LangChain's form, which agents of the agents file read too. ``reason`` is for the model.
    """
    decision: dict[str, Any] = {"type": "approve" if approved else "reject"}
    if not approved and isinstance(reason, str) and reason:
        decision["message"] = reason
    return {"decisions": [decision] * max(1, len(_requests_in(value) if isinstance(value, dict) else ()))}


def edit(value: Any, args: Any) -> dict[str, Any]:
    """Return the answer that approves the one call that a question asks about, with other arguments."""
    name = next((call.name for call in calls_of(value)), "")
    return {"decisions": [{"type": "edit", "edited_action": {"name": name, "args": args}}]}


def decision_in(answer: Any) -> tuple[bool, str | None]:
    """Return whether an answer approves, in any of its forms, and its reason; one of several decisions may reject."""
    decisions = answer.get("decisions") if isinstance(answer, dict) else None
    given = decisions if isinstance(decisions, list) and decisions else [answer]
    members = [one if isinstance(one, dict) else {"action": one} for one in given]
    approved = all(one.get("action", one.get("type")) in _APPROVING for one in members)
    reasons = [one.get("reason", one.get("message")) for one in members]
    return approved, next((reason for reason in reasons if isinstance(reason, str)), None)


def answers_by_call(questions: Iterable[OpenQuestion], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``results`` of tool calls, by call id, as answers to the open ``questions`` of those calls.

    Tools that a protocol's client offers and runs itself work like this on every wire: the request's tools go into
    ``RunCreate.model_options``; a call to one ends the run with a question (``client_call_id``); the next request
    brings results by call id, which become the ``CommandBody.resume`` of the next run. A call that no longer waits is
    left out.
    """
    return {one.id: results[one.call_id] for one in questions if one.call_id is not None and one.call_id in results}


def resume_of(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``answers``, by question id, as the ``resume`` of a run.

    Without any, they answer no question: the run is refused, or found again by its idempotency key.
    """
    return dict(answers) or {_NO_QUESTION: None}
