"""Documents that nobody sees any more go, with their chunks, some at a time: what was deleted, what never arrived."""

import time
from uuid import UUID

from app.base.tasks import Tasks
from app.infra.db.engine import Database

SWEEP_SECONDS = 60.0
ABANDONED = "1 hour"
"""After this time without a new part, an upload will not go on."""
AT_ONCE = 500
"""Chunks in one transaction: each takes its vectors along."""

_CHUNKS = """
delete from store_items i using (
  select tenant_id, namespace, key from store_items
  where tenant_id = $1 and namespace = (
    select namespace from documents where tenant_id = $1 and document_id = $2 and status in ('receiving', 'deleted'))
  limit $3) o
where i.tenant_id = o.tenant_id and i.namespace = o.namespace and i.key = o.key
"""
_DOCUMENT = """
delete from documents where tenant_id = $1 and document_id = $2 and status in ('receiving', 'deleted')
"""
_LEFT = f"""
select tenant_id, document_id from documents
where status in ('receiving', 'deleted')
  and (status = 'deleted' or updated_at < now() - interval '{ABANDONED}')
order by updated_at limit 100
"""


class DocumentGarbageCollector:
    """Removes the documents of all tenants that are gone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks = Tasks("documents")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Look every minute for what is left."""
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def sweep(self) -> int:
        """Remove what is left; how many documents."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(_LEFT)
        for row in rows:
            await self.remove(row["tenant_id"], row["document_id"], SWEEP_SECONDS)
        return len(rows)

    async def remove(self, tenant_id: UUID, document_id: UUID, seconds: float) -> None:
        """Remove a document that is gone; the sweep goes on with what is not done in ``seconds``."""
        until = time.monotonic() + seconds
        async with self._database.engine_connection() as connection:
            while await connection.execute(_CHUNKS, tenant_id, document_id, AT_ONCE) != "DELETE 0":
                if time.monotonic() > until:
                    return
            # a batch that was committed since then goes with the row, by a trigger
            await connection.execute(_DOCUMENT, tenant_id, document_id)
