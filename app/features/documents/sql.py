"""Statements of an ingestion, as the engine: each is fenced by the run, and by the place that it goes on from."""

from typing import Any
from uuid import UUID

import msgspec

from app.infra.db.engine import Database

_LOAD = """
select document_id, collection, namespace, status, content_type, charset, size, run_id, characters,
  pages::text as pages, position, chunks, title
from documents where tenant_id = $1 and document_id = $2 and status <> 'receiving'
"""
_MINE = "where tenant_id = $1 and document_id = $2 and run_id = $3 and status = 'accepted'"
EXTRACTED = f"""
update documents set characters = $4, pages = $5::jsonb, title = coalesce(title, nullif($6, '')), updated_at = now()
{_MINE} and characters is null
"""
ADVANCE = f"""
update documents set position = $4, chunks = chunks + $5, updated_at = now() {_MINE} and position = $6
"""
READY = f"update documents set status = 'ready', updated_at = now() {_MINE} and position = $4"
FAILED = f"update documents set status = 'failed', error = $4, updated_at = now() {_MINE}"
ANALYZE = "select store_analyze($1)"
"""So that searches are planned by what is there now."""
DONE = "UPDATE 1"


class IngestProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a document is. ``characters`` None: its text is not taken out of it yet."""

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
    def which(self) -> tuple[UUID, UUID, UUID | None]:
        """The parameters that fence a statement."""
        return self.tenant_id, self.document_id, self.run_id

    def shown(self, phase: str) -> dict[str, Any]:
        """What clients see of it, in ``custom`` streams and in the thread's values."""
        return {
            "document_id": str(self.document_id),
            "phase": phase,
            "characters": self.position,
            "of": self.characters,
            "chunks": self.chunks,
        }


async def loaded(database: Database, tenant_id: UUID, document_id: UUID) -> IngestProgress | None:
    """Where a document stands; None for one that is not there."""
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


async def written(database: Database, statement: str, *values: object) -> None:
    """Do one of the statements."""
    async with database.engine_connection() as connection:
        await connection.execute(statement, *values)
