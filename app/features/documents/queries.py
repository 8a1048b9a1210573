"""SQL of documents, as one tenant sees them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
import zstandard
from sqlalchemy import Row

from app.base.errors import TooLarge
from app.engine.tables import runs
from app.features.documents.tables import documents
from app.features.store.tables import store_items
from app.infra.db.engine import Database
from app.infra.db.session import Reader, Writer

CONTENT, TEXT = 0, 1
"""The kinds of parts: what was uploaded, and the text taken out of it."""

RECEIVING = "-"
"""In place of the collection until the whole document is there."""

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

_PART = sa.text("""
select p.number, p.start, p.content from document_parts p
where p.tenant_id = :tenant and p.document_id = :document and p.kind = :kind and p.number = :number
""")


async def begin(session: Writer, tenant_id: UUID, document_id: UUID, namespace: str, content_type: str) -> None:
    """Make room for a document that is on its way: nobody sees it yet."""
    await (await session.driver()).execute(_BEGIN, tenant_id, document_id, namespace, content_type)


async def add_parts(session: Writer, tenant_id: UUID, document_id: UUID, kind: int, parts: Sequence[Part]) -> None:
    """Add ``parts``; the document counts as alive from now on."""
    driver = await session.driver()
    await driver.execute(ADD_PARTS, tenant_id, document_id, kind, *columns_of(parts))
    touch = "update documents set updated_at = now() where tenant_id = $1 and document_id = $2"
    await driver.execute(touch, tenant_id, document_id)


def columns_of(parts: Sequence[Part]) -> tuple[list[int], list[int], list[bytes]]:
    """``parts`` as the arrays of ``ADD_PARTS``."""
    return [one.number for one in parts], [one.start for one in parts], [one.content for one in parts]


def too_large(name: str, max_bytes: int) -> TooLarge:
    """The refusal of a document larger than its format may be."""
    return TooLarge(f"{name} is taken up to {max_bytes} bytes.")


async def remove(session: Writer, tenant_id: UUID, document_id: UUID) -> None:
    """Remove a document that was not accepted."""
    await session.execute(
        sa.delete(documents).where(
            documents.c.tenant_id == tenant_id,
            documents.c.document_id == document_id,
            documents.c.status == "receiving",
        )
    )


async def accept(session: Writer, tenant_id: UUID, document_id: UUID, values: Mapping[str, Any]) -> None:
    """The document is whole, or is to be ingested anew: ``values`` say what it is."""
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
"""Of one that was accepted, its run tells; one whose run has ended, or is gone, without saying so has failed."""

_ERROR = sa.case(
    (documents.c.status == "ready", None),
    else_=sa.func.coalesce(
        documents.c.error,
        runs.c.error["message"].astext,
        sa.case((_STATUS == "failed", "Its ingestion was stopped: upload it again."), else_=None),
    ),
)

_SHOWN = (
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
    """One document."""
    return await session.first(
        sa.select(*_SHOWN)
        .select_from(_FROM)
        .where(*_visible(tenant_id), *session.within(documents.c.metadata), documents.c.document_id == document_id)
    )


async def same(session: Writer, tenant_id: UUID, collection: str, fingerprint: bytes) -> Row[Any] | None:
    """The document that is the same, locked."""
    return await session.first(
        sa.select(*_SHOWN)
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
    """Which documents a list shows."""
    found = _visible(tenant_id)
    if collection is not None:
        found.append(documents.c.collection == collection)
    if status is not None:
        found.append(_STATUS.in_((status,)))
    return found


async def page(
    session: Reader, conditions: Sequence[sa.ColumnElement[bool]], limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """A page of documents, the newest first, and how many there are on all pages."""
    conditions = [*conditions, *session.within(documents.c.metadata)]
    rows = await session.all(
        sa.select(*_SHOWN)
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
"""What citations say of documents."""


async def mark_deleted(session: Writer, tenant_id: UUID, document_id: UUID) -> Row[Any] | None:
    """Let nobody see a document any more; what it was."""
    return await session.first(
        sa.update(documents)
        .where(*_visible(tenant_id), *session.within(documents.c.metadata), documents.c.document_id == document_id)
        .values(status="deleted", fingerprint=None, updated_at=sa.func.now())
        .returning(documents.c.namespace, documents.c.run_id)
    )


async def chunks(session: Reader, tenant_id: UUID, namespace: str, limit: int, offset: int) -> Sequence[Row[Any]]:
    """A page of the chunks of a document, in their order, as JSON text."""
    return await session.all(
        sa.select(sa.cast(store_items.c.value, sa.Text).label("value"))
        .where(store_items.c.tenant_id == tenant_id, store_items.c.namespace == namespace)
        .order_by(store_items.c.key)
        .limit(limit)
        .offset(offset)
    )


async def stored(database: Database, tenant_id: UUID, document_id: UUID, kind: int) -> AsyncIterator[bytes]:
    """The parts of a document, one after the other: no more than one is in memory, no connection is held between."""
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
