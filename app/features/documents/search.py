"""Passages of documents that answer a question: the store's search, over the chunks of documents that are ready.

Long-term memory as agents see it, with documents: the tools ``memory`` and ``knowledge``, and ``context``.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.agents.tools.port import Passage
from app.base.errors import Invalid
from app.domain.caller import Caller
from app.features.documents import queries
from app.features.documents.structs import RESOURCE, Chunk, PassageSearch, check_collection, namespace_of
from app.features.store.agent_store import AgentStore
from app.features.store.index.indexing import ItemIndexer
from app.features.store.search.filters import FilterCondition, conditions_of
from app.features.store.search.hybrid_search import MAX_DEPTH, SearchQuery, StoreSearch
from app.features.store.search.sql import SETTINGS, SearchScope
from app.features.store.service import StoreService
from app.infra.db.engine import Database
from app.security.access.structs import ActingUser, MetadataFilter, Principal

MAX_QUERY_LENGTH = 8000
"""Characters."""


class FoundChunk(Chunk, kw_only=True):
    """A chunk as the store keeps it."""

    document_id: UUID


class DocumentSearch:
    """Searches the documents of all tenants."""

    def __init__(self, database: Database, indexing: ItemIndexer) -> None:
        self._database = database
        self._indexing = indexing
        self._searching = StoreSearch()

    async def passages(self, principal: Principal, wanted: PassageSearch) -> list[Passage]:
        """A page of passages that ``principal`` may read, the best first.

        Raises ``Invalid``, and what handlers of the operator's raise (``Principal.permit``).
        """
        tenant_id = principal.tenant_id
        owned = await principal.permit(RESOURCE, "search", **msgspec.structs.asdict(wanted))
        text = wanted.query.strip()
        _check(text, wanted)
        path = namespace_of("" if wanted.collection is None else check_collection(wanted.collection))
        question = SearchQuery(
            place=SearchScope(tenant_id, path),
            text=text,
            near=await self._indexing.question(path, text, tenant_id),
            conditions=[_condition(wanted, owned)],
            limit=wanted.limit,
            offset=wanted.offset,
        )
        async with self._database.tuned(tenant_id, SETTINGS) as connection:
            rows = await self._searching.search(connection, question)
            found = [msgspec.json.decode(one.row["value"], type=FoundChunk) for one in rows]
            titles = await connection.fetch(queries.TITLES, tenant_id, list({one.document_id for one in found}))
        about = {row["document_id"]: row for row in titles}
        return [
            _passage(one, row.score or 0.0, about[one.document_id])
            for one, row in zip(found, rows, strict=True)
            if one.document_id in about
        ]


def _condition(wanted: PassageSearch, owned: MetadataFilter) -> FilterCondition:
    """That a chunk is of a document that is ready, wanted, and has ``owned`` in its metadata."""
    of = conditions_of(wanted.filter, "d.metadata")
    if owned is not None:
        of.append(FilterCondition("d.metadata @> {}", ((owned, "text::jsonb"),)))
    if wanted.document_ids is not None:
        of.append(FilterCondition("d.document_id = any({})", ((wanted.document_ids, "uuid[]"),)))
    text = " and ".join(
        ["d.tenant_id = i.tenant_id and d.namespace = i.namespace and d.status = 'ready'", *(one.text for one in of)]
    )
    return FilterCondition(
        f"exists (select from documents d where {text})", tuple(value for one in of for value in one.values)
    )


def _passage(found: FoundChunk, score: float, about: asyncpg.Record) -> Passage:
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
    if len(text) > MAX_QUERY_LENGTH:
        raise Invalid(f"`query` is longer than {MAX_QUERY_LENGTH} characters.", (("/query", "too long"),))
    if wanted.limit < 1:
        raise Invalid("limit must be at least 1.", (("/limit", "out of range"),))
    if wanted.offset < 0 or wanted.limit + wanted.offset > MAX_DEPTH:
        raise Invalid(
            f"A search goes {MAX_DEPTH} passages deep: limit and offset together are from 1 to that.",
            (("/offset", "out of range"),),
        )


class LongTermMemory(AgentStore):
    """The items and the documents of all tenants for agents in this process (``app.agents.tools.port.LongTerm``)."""

    def __init__(self, store: StoreService, finding: DocumentSearch, acting: ActingUser) -> None:
        super().__init__(store, acting)
        self._finding = finding

    async def passages(
        self,
        caller: Caller,
        query: str,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """What documents say that answers ``query``. Raises ``Invalid``."""
        wanted = PassageSearch(
            query=query, collection=collection or None, filter=dict(filter) if filter else None, limit=limit
        )
        return await self._finding.passages(self._acting(caller), wanted)
