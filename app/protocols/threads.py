"""Continue a thread: find it by another protocol's id, and what it does not know yet."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID, uuid5

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
