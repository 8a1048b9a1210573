"""What names a request that may be sent twice."""

from uuid import UUID

import msgspec

HOURS = 24
"""How long a key is known."""


class IdempotencyKey(msgspec.Struct, frozen=True):
    """An ``Idempotency-IdempotencyKey`` on ``route`` (method and path); ``fingerprint`` is the SHA-256 of the body."""

    route: str
    key: str
    fingerprint: bytes


NONE = UUID(int=0)


class ReplayedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the first request with a key made: ``answer`` is the JSON of it; a run also has its ids."""

    answer: bytes
    run_id: UUID = NONE
    thread_id: UUID = NONE
