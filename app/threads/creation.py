"""New threads, created in groups: the first request of most conversations."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from app.db.engine import Database
from app.db.groups import Groups
from app.threads.queries import CREATE


class NewThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread to create; ``metadata`` is JSON."""

    tenant_id: UUID
    thread_id: UUID
    metadata: str


async def create(connection: asyncpg.Connection, new: Sequence[NewThread]) -> list[datetime | None]:
    """Create threads in one statement: when each was created, None where its id is taken."""
    rows = await connection.fetch(
        CREATE, [n.tenant_id for n in new], [n.thread_id for n in new], [n.metadata for n in new]
    )
    made = {(row["tenant_id"], row["thread_id"]): row["created_at"] for row in rows}
    return [made.get((n.tenant_id, n.thread_id)) for n in new]


class ThreadCreation:
    """Creates threads; many at once share a round trip and a commit."""

    def __init__(self, database: Database) -> None:
        self._groups: Groups[NewThread, datetime | None] = Groups(
            "threads", database, create, key=lambda new: (new.tenant_id, new.thread_id), lanes=1
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def create(self, new: NewThread) -> datetime | None:
        """When the thread was created; None when its id is taken."""
        return await self._groups.submit(new)
