"""SQL of documents in the scope of one tenant."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
import zstandard
from sqlalchemy import Row

from app.engine.tables import runs
from app.features.documents.tables import documents
from app.features.store.tables import store_items
from app.infra.db.engine import Database
from app.infra.db.session import Reader, Writer

CONTENT, TEXT = 0, 1
"""Kinds of parts: the uploaded file, and the text extracted from it."""

RECEIVING = "-"
"""Stands for the collection until the whole document has arrived."""

VISIBLE = ("accepted", "ready", "failed")


class Part(NamedTuple):
    """A part of a document; ``content`` is compressed."""

    number: int
    start: int
    content: bytes


_BEGIN = """
insert into documents (tenant_id, document_id, collection, namespace, status, content_type)
values ($1, $2, '-', $3, 'receiving', $4)
"""

ADD_PARTS = """
insert into document_parts (tenant_id, document_id, kind, number, start, content)
select d.tenant_id, d.document_id, $3, g.number, g.start, g.content
from documents d, unnest($4::int[], $5::bigint[], $6::bytea[]) as g(number, start, content)
where d.tenant_id = $1 and d.document_id = $2
on conflict do nothing
"""

_TOUCH = "update documents set updated_at = now() where tenant_id = $1 and document_id = $2"

_PART = sa.text("""
select p.number, p.start, p.content from document_parts p
where p.tenant_id = :tenant and p.document_id = :document and p.kind = :kind and p.number = :number
""")


async def begin(session: Writer, tenant_id: UUID, document_id: UUID, namespace: str, content_type: str) -> None:
    """Insert a document that is being received; it is not visible yet."""
    await (await session.driver()).execute(_BEGIN, tenant_id, document_id, namespace, content_type)


async def add_parts(session: Writer, tenant_id: UUID, document_id: UUID, kind: int, parts: Sequence[Part]) -> None:
    """Add ``parts``, and mark the upload as still in progress."""
    driver = await session.driver()
    await driver.execute(ADD_PARTS, tenant_id, document_id, kind, *columns_of(parts))
    await driver.execute(_TOUCH, tenant_id, document_id)


def columns_of(parts: Sequence[Part]) -> tuple[list[int], list[int], list[bytes]]:
    """Return ``parts`` as the array parameters of ``ADD_PARTS``."""
    return [one.number for one in parts], [one.start for one in parts], [one.content for one in parts]


async def remove(session: Writer, tenant_id: UUID, document_id: UUID) -> None:
    """Delete a document that was not accepted."""
    await session.execute(
        sa.delete(documents).where(
            documents.c.tenant_id == tenant_id,
            documents.c.document_id == document_id,
            documents.c.status == "receiving",
        )
    )


async def accept(session: Writer, tenant_id: UUID, document_id: UUID, values: Mapping[str, Any]) -> None:
    """Accept a document for ingestion, the first time or again, with its column ``values``."""
    await session.execute(
        sa.update(documents)
        .where(documents.c.tenant_id == tenant_id, documents.c.document_id == document_id)
        .values(status="accepted", error=None, updated_at=sa.func.now(), **values)
    )


_STATUS = sa.case(
    (documents.c.status != "accepted", documents.c.status),
    (runs.c.status.in_(("pending", "running")), runs.c.status),
    else_="failed",
)
"""An accepted document has its run's status; it has failed if the run ended or was deleted before it was ready."""

_ERROR = sa.case(
    (documents.c.status == "ready", None),
    else_=sa.func.coalesce(
        documents.c.error,
        runs.c.error["message"].astext,
        sa.case((_STATUS == "failed", "The ingestion was stopped: upload the document again."), else_=None),
    ),
)

_COLUMNS = (
    documents.c.document_id,
    documents.c.collection,
    sa.func.coalesce(documents.c.title, documents.c.filename).label("title"),
    documents.c.filename,
    documents.c.content_type,
    documents.c.size,
    documents.c.sha256,
    sa.cast(documents.c.metadata, sa.Text).label("metadata"),
    _STATUS.label("status"),
    _ERROR.label("error"),
    documents.c.characters,
    sa.func.jsonb_array_length(documents.c.pages).label("pages"),
    documents.c.chunks,
    documents.c.run_id,
    documents.c.thread_id,
    documents.c.created_at,
    documents.c.updated_at,
    documents.c.namespace,
)
_FROM = documents.outerjoin(
    runs, sa.and_(runs.c.tenant_id == documents.c.tenant_id, runs.c.run_id == documents.c.run_id)
)


async def get(session: Reader, tenant_id: UUID, document_id: UUID) -> Row[Any] | None:
    """Fetch a visible document."""
    return await session.first(
        sa.select(*_COLUMNS)
        .select_from(_FROM)
        .where(*_visible(tenant_id), *session.within(documents.c.metadata), documents.c.document_id == document_id)
    )


async def find_duplicate(session: Writer, tenant_id: UUID, collection: str, fingerprint: bytes) -> Row[Any] | None:
    """Fetch and lock the document that has the same fingerprint."""
    return await session.first(
        sa.select(*_COLUMNS)
        .select_from(_FROM)
        .where(
            documents.c.tenant_id == tenant_id,
            documents.c.collection == collection,
            documents.c.fingerprint == fingerprint,
        )
        .with_for_update(of=documents)
    )


def _visible(tenant_id: UUID) -> list[sa.ColumnElement[bool]]:
    return [documents.c.tenant_id == tenant_id, documents.c.status.in_(VISIBLE)]


def conditions_of(tenant_id: UUID, collection: str | None, status: str | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a list of documents."""
    found = _visible(tenant_id)
    if collection is not None:
        found.append(documents.c.collection == collection)
    if status is not None:
        found.append(_STATUS.in_((status,)))
    return found


async def page(
    session: Reader, conditions: Sequence[sa.ColumnElement[bool]], limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """Fetch a page of documents, the newest first, and the total."""
    conditions = [*conditions, *session.within(documents.c.metadata)]
    rows = await session.all(
        sa.select(*_COLUMNS)
        .select_from(_FROM)
        .where(*conditions)
        .order_by(documents.c.created_at.desc(), documents.c.document_id.desc())
        .limit(limit)
        .offset(offset)
    )
    total = await session.scalar(sa.select(sa.func.count()).select_from(_FROM).where(*conditions))
    return rows, int(total)


TITLES = """
select document_id, collection, coalesce(title, filename, '') as title, metadata::text as metadata from documents
where tenant_id = $1 and document_id = any($2::uuid[])
"""
"""Document data of citations."""


async def mark_deleted(session: Writer, tenant_id: UUID, document_id: UUID) -> Row[Any] | None:
    """Hide a document from all readers. Return its namespace and run, None if it does not exist."""
    return await session.first(
        sa.update(documents)
        .where(*_visible(tenant_id), *session.within(documents.c.metadata), documents.c.document_id == document_id)
        .values(status="deleted", fingerprint=None, updated_at=sa.func.now())
        .returning(documents.c.namespace, documents.c.run_id)
    )


async def chunks(session: Reader, tenant_id: UUID, namespace: str, limit: int, offset: int) -> Sequence[Row[Any]]:
    """Fetch a page of a document's chunks in order, as JSON text."""
    return await session.all(
        sa.select(sa.cast(store_items.c.value, sa.Text).label("value"))
        .where(store_items.c.tenant_id == tenant_id, store_items.c.namespace == namespace)
        .order_by(store_items.c.key)
        .limit(limit)
        .offset(offset)
    )


async def read_parts(database: Database, tenant_id: UUID, document_id: UUID, kind: int) -> AsyncIterator[bytes]:
    """Yield the parts of a document. One part is in memory at a time, and no connection is held in between."""
    number = 0
    while True:
        async with database.reading(tenant_id) as session:
            row = await session.first(
                _PART, {"tenant": tenant_id, "document": document_id, "kind": kind, "number": number}
            )
        if row is None:
            return
        yield zstandard.decompress(row.content)
        number += 1
