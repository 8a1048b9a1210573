"""Audit log entries as clients see them."""

from datetime import datetime
from uuid import UUID

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """``actor`` did ``action`` to ``subject``, ``count`` times within a second."""

    entry_id: UUID
    at: datetime
    action: str
    actor: str
    subject: str
    count: int
