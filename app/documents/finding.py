"""Passages of documents that answer a question: the store's search, over the chunks of documents that are ready."""

from uuid import UUID

import asyncpg
import msgspec

from app.access.structs import Owned, Principal
from app.base.errors import Invalid
from app.db.engine import Database
from app.documents import queries
from app.documents.structs import RESOURCE, Chunk, PassageSearch, check_collection, namespace_of
from app.store.filters import Condition, conditions_of
from app.store.indexing import Indexing
from app.store.searching import DEEPEST, Question, Searching
from app.store.statements import SETTINGS, Place
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
        self._searching = Searching()

    async def passages(self, who: Principal, wanted: PassageSearch) -> list[Passage]:
        """A page of passages that ``who`` may read, the best first.

        Raises ``Invalid``, and what handlers of the operator's raise (``Principal.permit``).
        """
        tenant_id = who.tenant_id
        owned = await who.permit(RESOURCE, "search", **msgspec.structs.asdict(wanted))
        text = wanted.query.strip()
        _check(text, wanted)
        path = namespace_of("" if wanted.collection is None else check_collection(wanted.collection))
        question = Question(
            place=Place(tenant_id, path),
            text=text,
            near=await self._indexing.question(path, text, tenant_id),
            conditions=[_condition(wanted, owned)],
            limit=wanted.limit,
            offset=wanted.offset,
        )
        async with self._database.tuned(tenant_id, SETTINGS) as connection:
            rows = await self._searching.search(connection, question)
            found = [msgspec.json.decode(one.row["value"], type=Found) for one in rows]
            titles = await connection.fetch(queries.TITLES, tenant_id, list({one.document_id for one in found}))
        about = {row["document_id"]: row for row in titles}
        return [
            _passage(one, row.score or 0.0, about[one.document_id])
            for one, row in zip(found, rows, strict=True)
            if one.document_id in about
        ]


def _condition(wanted: PassageSearch, owned: Owned) -> Condition:
    """That a chunk is of a document that is ready, wanted, and has ``owned`` in its metadata."""
    of = conditions_of(wanted.filter, "d.metadata")
    if owned is not None:
        of.append(Condition("d.metadata @> {}", ((owned, "text::jsonb"),)))
    if wanted.document_ids is not None:
        of.append(Condition("d.document_id = any({})", ((wanted.document_ids, "uuid[]"),)))
    text = " and ".join(
        ["d.tenant_id = i.tenant_id and d.namespace = i.namespace and d.status = 'ready'", *(one.text for one in of)]
    )
    return Condition(
        f"exists (select from documents d where {text})", tuple(value for one in of for value in one.values)
    )


def _passage(found: Found, score: float, about: asyncpg.Record) -> Passage:
    return Passage(
        document_id=found.document_id,
        title=about["title"],
        collection=about["collection"],
        chunk=found.chunk,
        start=found.start,
        end=found.end,
        page=None if found.page is msgspec.UNSET else found.page,
        text=found.text,
        score=score,
        metadata=msgspec.json.decode(about["metadata"]),
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
