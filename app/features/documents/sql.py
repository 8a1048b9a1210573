"""SQL that runs across tenants on engine connections: ingestion, the text of a document, garbage collection.

Statements of an ingestion are fenced by its run and by the position that they continue from.
"""

from typing import Any
from uuid import UUID

import msgspec

from app.infra.db.engine import Database

_LOAD = """
select document_id, collection, namespace, status, content_type, charset, size, run_id, characters,
  pages::text as pages, position, chunks, title
from documents where tenant_id = $1 and document_id = $2 and status <> 'receiving'
"""
_FENCE = "where tenant_id = $1 and document_id = $2 and run_id = $3 and status = 'accepted'"
EXTRACTED = f"""
update documents set characters = $4, pages = $5::jsonb, title = coalesce(title, nullif($6, '')), updated_at = now()
{_FENCE} and characters is null
"""
ADVANCE = f"""
update documents set position = $4, chunks = chunks + $5, updated_at = now() {_FENCE} and position = $6
"""
READY = f"update documents set status = 'ready', updated_at = now() {_FENCE} and position = $4"
FAILED = f"update documents set status = 'failed', error = $4, updated_at = now() {_FENCE}"
ANALYZE = "select store_analyze($1)"
"""Refresh the statistics of the store's tables after many new rows."""
ADVANCED = "UPDATE 1"

PART_AT = """
select number, start, content from document_parts
where tenant_id = $1 and document_id = $2 and kind = $3 and start <= $4 order by start desc, number desc limit 1
"""
PART = """
select number, start, content from document_parts
where tenant_id = $1 and document_id = $2 and kind = $3 and number = $4
"""

DELETE_CHUNKS = """
delete from store_items i using (
  select tenant_id, namespace, key from store_items
  where tenant_id = $1 and namespace = (
    select namespace from documents where tenant_id = $1 and document_id = $2 and status in ('receiving', 'deleted'))
  limit $3) o
where i.tenant_id = o.tenant_id and i.namespace = o.namespace and i.key = o.key
"""
DELETE_DOCUMENT = """
delete from documents where tenant_id = $1 and document_id = $2 and status in ('receiving', 'deleted')
"""
ABANDONED_AFTER = "1 hour"
"""An upload without a new part for this time is abandoned."""
GARBAGE = f"""
select tenant_id, document_id from documents
where status in ('receiving', 'deleted')
  and (status = 'deleted' or updated_at < now() - interval '{ABANDONED_AFTER}')
order by updated_at limit 1
"""


class IngestProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a document's ingestion. ``characters`` is None until its text is extracted."""

    tenant_id: UUID
    document_id: UUID
    collection: str
    namespace: str
    status: str
    content_type: str
    charset: str | None
    size: int
    run_id: UUID | None
    characters: int | None
    pages: list[int]
    position: int
    chunks: int
    title: str | None

    @property
    def fence(self) -> tuple[UUID, UUID, UUID | None]:
        """The parameters that fence a statement."""
        return self.tenant_id, self.document_id, self.run_id

    def view(self, phase: str) -> dict[str, Any]:
        """Return the progress as clients see it, in ``custom`` streams and in the thread's values."""
        return {
            "document_id": str(self.document_id),
            "phase": phase,
            "characters": self.position,
            "of": self.characters,
            "chunks": self.chunks,
        }


async def load_progress(database: Database, tenant_id: UUID, document_id: UUID) -> IngestProgress | None:
    """Load the progress of a document, None if it does not exist or is deleted."""
    async with database.engine_connection() as connection:
        row = await connection.fetchrow(_LOAD, tenant_id, document_id)
    if row is None or row["status"] == "deleted":
        return None
    pages = msgspec.json.decode(row["pages"] or "[]", type=list[int])
    return IngestProgress(
        tenant_id=tenant_id,
        pages=pages,
        **{name: row[name] for name in row.keys() if name != "pages"},  # noqa: SIM118
    )


async def execute(database: Database, statement: str, *values: object) -> None:
    """Execute one of the statements on an engine connection."""
    async with database.engine_connection() as connection:
        await connection.execute(statement, *values)
