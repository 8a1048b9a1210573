"""Wire shapes of webhook deliveries."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

DeliveryStatus = Literal["pending", "delivered", "dead"]


class Delivery(msgspec.Struct, kw_only=True):
    """The delivery of one run's webhook. ``answer`` and ``problem`` are those of the last attempt."""

    run_id: UUID
    thread_id: UUID
    url: str
    status: str
    attempts: int
    answer: int | None
    problem: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None
