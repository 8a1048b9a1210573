"""Garbage-collect deleted documents and abandoned uploads, with their chunks, in batches, in one process at a time."""

import time
from uuid import UUID

import asyncpg

from app.base.tasks import Tasks
from app.features.documents import sql
from app.infra.db.batches import in_batches
from app.infra.db.engine import Database

SWEEP_SECONDS = 60.0
BATCH_SIZE = 500
"""Chunks deleted in one transaction, each with its vectors."""


class DocumentGarbageCollector:
    """Removes deleted documents and abandoned uploads of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks = Tasks("documents")

    def start(self) -> None:
        """Sweep every minute."""
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def aclose(self) -> None:
        """Stop sweeping."""
        await self._tasks.aclose()

    async def sweep(self) -> int:
        """Remove documents until none is left, unless another process does. Return their number."""

        async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
            row = await connection.fetchrow(sql.GARBAGE)
            if row is None:
                return 0, False
            return int(await _remove_part(connection, row["tenant_id"], row["document_id"])), True

        return await in_batches(self._database, "documents", batch)

    async def remove(self, tenant_id: UUID, document_id: UUID, seconds: float) -> None:
        """Remove a deleted document; the next sweep continues if that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        async with self._database.engine_connection() as connection:
            while time.monotonic() < deadline:
                if await _remove_part(connection, tenant_id, document_id):
                    return


async def _remove_part(connection: asyncpg.Connection, tenant_id: UUID, document_id: UUID) -> bool:
    """Delete a batch of a deleted document's chunks, or the document if it has none; return whether it is gone."""
    if await connection.execute(sql.DELETE_CHUNKS, tenant_id, document_id, BATCH_SIZE) != "DELETE 0":
        return False
    await connection.execute(sql.DELETE_DOCUMENT, tenant_id, document_id)
    return True  # a trigger deletes a batch of chunks that was committed since
