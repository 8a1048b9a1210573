"""Find a thread again by the id that another protocol gives a conversation."""

from uuid import UUID, uuid5

from app.security.access.structs import Principal

NAMESPACE = UUID("3a0ac0a6-6b5c-5a5e-8f52-0c4c2f3b7d11")


def thread_id_of(principal: Principal, conversation: str) -> UUID:
    """Return the thread of ``conversation``: a UUID names the thread itself, any other text one of its user's own."""
    try:
        return UUID(conversation)
    except ValueError:
        return uuid5(NAMESPACE, f"{principal.tenant_id} {principal.user_id} {conversation}")
