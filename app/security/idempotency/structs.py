"""Idempotency keys and replayed responses."""

from uuid import UUID

import msgspec


class IdempotencyKey(msgspec.Struct, frozen=True):
    """An ``Idempotency-Key`` on ``route`` (method and path); ``fingerprint`` is the SHA-256 of the body."""

    route: str
    key: str
    fingerprint: bytes


NONE = UUID(int=0)


class ReplayedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Response to the first request with a key: ``answer`` is its JSON; a run also has its ids."""

    answer: bytes
    run_id: UUID = NONE
    thread_id: UUID = NONE
