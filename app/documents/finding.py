"""Passages of documents that answer a question: the store's search, over the chunks of documents that are ready."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB

from app.base.errors import Invalid
from app.db.engine import Database
from app.documents import queries
from app.documents.structs import Chunk, PassageSearch, check_collection, namespace_of
from app.documents.tables import documents
from app.store import searching
from app.store.filters import Condition, conditions_of
from app.store.indexing import Indexing
from app.store.names import range_of
from app.store.searching import DEEPEST, Question
from app.store.tables import store_items
from app.tools.port import Passage

LONGEST_QUERY = 8000
"""Characters."""


class Found(Chunk, kw_only=True):
    """A chunk as the store keeps it."""

    document_id: UUID


class Finding:
    """Searches the documents of all tenants."""

    def __init__(self, database: Database, indexing: Indexing) -> None:
        self._database = database
        self._indexing = indexing

    async def passages(self, tenant_id: UUID, wanted: PassageSearch, owned: str | None = None) -> list[Passage]:
        """A page of passages, the best first. Raises ``Invalid``.

        ``owned``: JSON that the metadata of their documents must contain.
        """
        text = wanted.query.strip()
        _check(text, wanted)
        path = namespace_of("" if wanted.collection is None else check_collection(wanted.collection))
        question = Question(
            tenant_id=tenant_id,
            path=path,
            text=text,
            near=await self._indexing.question(path, text, tenant_id),
            conditions=_conditions(tenant_id, path, wanted, owned),
            filtered=bool(wanted.filter) or wanted.document_ids is not None or owned is not None,
            limit=wanted.limit,
            offset=wanted.offset,
        )
        async with self._database.reading(tenant_id) as session:
            rows = await searching.search(session, question)
            found = [msgspec.json.decode(row.value, type=Found) for row in rows]
            titles = await queries.titles(session, tenant_id, list({one.document_id for one in found}))
        about = {row.document_id: row for row in titles}
        return [
            _passage(one, row.score, about[one.document_id])
            for one, row in zip(found, rows, strict=True)
            if one.document_id in about
        ]


def _conditions(tenant_id: UUID, path: str, wanted: PassageSearch, owned: str | None) -> Sequence[Condition]:
    """That a chunk lies below ``path``, and is of a document that is ready and wanted."""
    first, last = range_of(path)
    of = [
        documents.c.tenant_id == store_items.c.tenant_id,
        documents.c.namespace == store_items.c.namespace,
        documents.c.status == "ready",
        *conditions_of(wanted.filter, documents.c.metadata),
    ]
    if owned is not None:
        of.append(documents.c.metadata.op("@>", is_comparison=True)(sa.cast(sa.literal(owned, sa.Text), JSONB)))
    if wanted.document_ids is not None:
        of.append(documents.c.document_id.in_(wanted.document_ids))
    return [
        store_items.c.tenant_id == tenant_id,
        store_items.c.namespace >= first,
        store_items.c.namespace < last,
        sa.exists().where(*of).correlate(store_items),
    ]


def _passage(found: Found, score: float, about: Row[Any]) -> Passage:
    return Passage(
        document_id=found.document_id,
        title=about.title,
        collection=about.collection,
        chunk=found.chunk,
        start=found.start,
        end=found.end,
        page=None if found.page is msgspec.UNSET else found.page,
        text=found.text,
        score=score,
        metadata=msgspec.json.decode(about.metadata),
    )


def _check(text: str, wanted: PassageSearch) -> None:
    if not text:
        raise Invalid("`query` is empty: say what to look for.", (("/query", "empty"),))
    if len(text) > LONGEST_QUERY:
        raise Invalid(f"`query` is longer than {LONGEST_QUERY} characters.", (("/query", "too long"),))
    if wanted.limit < 1:
        raise Invalid("limit must be at least 1.", (("/limit", "out of range"),))
    if wanted.offset < 0 or wanted.limit + wanted.offset > DEEPEST:
        raise Invalid(
            f"A search goes {DEEPEST} passages deep: limit and offset together are from 1 to that.",
            (("/offset", "out of range"),),
        )
