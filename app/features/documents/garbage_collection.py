"""Garbage-collect deleted documents and abandoned uploads, with their chunks, in batches."""

import time
from uuid import UUID

from app.base.tasks import Tasks
from app.features.documents import sql
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
        """Remove up to 100 documents. Return their number."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(sql.GARBAGE)
        for row in rows:
            await self.remove(row["tenant_id"], row["document_id"], SWEEP_SECONDS)
        return len(rows)

    async def remove(self, tenant_id: UUID, document_id: UUID, seconds: float) -> None:
        """Remove a deleted document; the next sweep continues if that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        async with self._database.engine_connection() as connection:
            while await connection.execute(sql.DELETE_CHUNKS, tenant_id, document_id, BATCH_SIZE) != "DELETE 0":
                if time.monotonic() > deadline:
                    return
            # a trigger deletes a batch of chunks that was committed since
            await connection.execute(sql.DELETE_DOCUMENT, tenant_id, document_id)
