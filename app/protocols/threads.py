"""Continue a thread: find it by another protocol's id, what it does not know yet, and answers to its questions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid5

from app.engine.execution.questions import OpenQuestion
from app.security.access.structs import Principal

CHAT_HEADERS = ("x-openwebui-chat-id", "x-chat-id")
"""Headers that name a conversation, whose thread a request continues."""

NAMESPACE = UUID("3a0ac0a6-6b5c-5a5e-8f52-0c4c2f3b7d11")


def chat_in(headers: Mapping[str, str]) -> str | None:
    """Return the id of the conversation that a chat UI names in a header of its request."""
    return next((headers[name] for name in CHAT_HEADERS if headers.get(name)), None)


def thread_id_of(principal: Principal, conversation: str) -> UUID:
    """Return the thread of ``conversation``: a UUID names the thread itself, any other text one of its user's own."""
    try:
        return UUID(conversation)
    except ValueError:
        return uuid5(NAMESPACE, f"{principal.tenant_id} {principal.user_id} {conversation}")


class WithRole(Protocol):
    """A message of a request that brings the whole conversation."""

    @property
    def role(self) -> str:
        """``assistant`` for an answer."""
        ...


M = TypeVar("M", bound=WithRole)


def news_in(messages: Sequence[M]) -> list[M]:
    """Return the messages after the last of an assistant: what a thread that has the others does not know yet."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "assistant":
            return list(messages[at + 1 :])
    return list(messages)


def answers_by_question(questions: Iterable[OpenQuestion], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``results`` of tool calls, by call id, as answers to the open ``questions`` of those calls.

    Tools that a protocol's client offers and runs itself work like this on every wire: the request's tools go into
    ``RunCreate.model_options``; a call to one ends the run with a question whose value has the ``type``
    ``client_tool_call``; the next request brings results by call id, and ``RunService.open_questions`` with this
    function makes them the ``CommandBody.resume`` of the next run. A call that no longer waits is left out.
    """
    return {one.id: results[one.call_id] for one in questions if one.call_id is not None and one.call_id in results}
