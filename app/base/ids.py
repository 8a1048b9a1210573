"""Identifiers: UUIDv7 (RFC 9562), so that new rows go to the end of their index, and derived UUIDv5 ids."""

import hashlib
import secrets
import uuid
from datetime import UTC, datetime

from uuid_utils.compat import uuid7

AGENT_NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")

__all__ = ["AGENT_NAMESPACE", "agent_id", "first_id_at", "new_id", "origin_id", "owner_id", "task_id", "time_of"]


def new_id() -> uuid.UUID:
    """Return a new time-ordered id."""
    return uuid7()


def first_id_at(moment: datetime) -> uuid.UUID:
    """Return the smallest id that ``new_id`` can have made at or after ``moment`` by a clock up to a minute slow."""
    milliseconds = max(int(moment.timestamp() * 1000) - 60_000, 0)
    return uuid.UUID(int=min(milliseconds, 2**48 - 1) << 80)


def owner_id(server: str) -> uuid.UUID:
    """Return a random owner token of a process of ``server``, whose hash is the first 48 bits."""
    return uuid.UUID(bytes=hashlib.blake2b(server.encode(), digest_size=6).digest() + secrets.token_bytes(10))


def agent_id(name: str) -> uuid.UUID:
    """Return the id of agent ``name``'s system assistant: UUIDv5, the same on every server."""
    return uuid.uuid5(AGENT_NAMESPACE, name)


def task_id(checkpoint_id: uuid.UUID, node: str) -> uuid.UUID:
    """Return the id of the task that runs ``node`` from ``checkpoint_id``."""
    return uuid.uuid5(checkpoint_id, node)


def origin_id(thread_id: uuid.UUID) -> uuid.UUID:
    """Return the id of the empty checkpoint before a thread's first. It is derived, as no row holds it."""
    return uuid.uuid5(thread_id, "__start__")


def time_of(id_: str) -> datetime | None:
    """Return when ``id_`` was made, to the millisecond; None if it is no UUIDv7."""
    made = uuid.UUID(id_)
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC) if made.version == 7 else None
