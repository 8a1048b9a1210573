"""Search passages of ready documents with the store's hybrid search.

``LongTermMemory`` gives agents items and documents: the tools ``memory`` and ``knowledge``, and ``context``.
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
from app.features.store.search.sql import SEARCH_SETTINGS, SearchScope
from app.features.store.service import StoreService
from app.infra.db.engine import Database
from app.security.access.structs import ActingUser, MetadataFilter, Principal

MAX_QUERY_LENGTH = 8000


class FoundChunk(Chunk, kw_only=True):
    """A chunk as stored."""

    document_id: UUID


class DocumentSearch:
    """Searches the documents of all tenants."""

    def __init__(self, database: Database, indexing: ItemIndexer) -> None:
        self._database = database
        self._indexing = indexing
        self._search = StoreSearch()

    async def passages(self, principal: Principal, search: PassageSearch) -> list[Passage]:
        """Return a page of passages that ``principal`` may read, the best first.

        Raises ``Invalid``, and what the operator's auth handlers raise (``Principal.permit``).
        """
        tenant_id = principal.tenant_id
        metadata_filter = await principal.permit(RESOURCE, "search", **msgspec.structs.asdict(search))
        text = search.query.strip()
        _check(text, search)
        path = namespace_of("" if search.collection is None else check_collection(search.collection))
        query = SearchQuery(
            scope=SearchScope(tenant_id, path),
            text=text,
            near=await self._indexing.index_query(path, text, tenant_id),
            conditions=[_condition(search, metadata_filter)],
            limit=search.limit,
            offset=search.offset,
        )
        async with self._database.tuned(tenant_id, SEARCH_SETTINGS) as connection:
            rows = await self._search.search(connection, query)
            found = [msgspec.json.decode(one.row["value"], type=FoundChunk) for one in rows]
            titles = await connection.fetch(queries.TITLES, tenant_id, list({one.document_id for one in found}))
        about = {row["document_id"]: row for row in titles}
        return [
            _passage(one, row.score or 0.0, about[one.document_id])
            for one, row in zip(found, rows, strict=True)
            if one.document_id in about
        ]


def _condition(search: PassageSearch, metadata_filter: MetadataFilter) -> FilterCondition:
    """Return the condition: a chunk belongs to a ready document of the search whose metadata contain the filter."""
    conditions = conditions_of(search.filter, "d.metadata")
    if metadata_filter is not None:
        conditions.append(FilterCondition("d.metadata @> {}", ((metadata_filter, "text::jsonb"),)))
    if search.document_ids is not None:
        conditions.append(FilterCondition("d.document_id = any({})", ((search.document_ids, "uuid[]"),)))
    text = " and ".join(
        [
            "d.tenant_id = i.tenant_id and d.namespace = i.namespace and d.status = 'ready'",
            *(one.text for one in conditions),
        ]
    )
    return FilterCondition(
        f"exists (select from documents d where {text})", tuple(value for one in conditions for value in one.values)
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


def _check(text: str, search: PassageSearch) -> None:
    if not text:
        raise Invalid("`query` is empty: give the words to search for.", (("/query", "empty"),))
    if len(text) > MAX_QUERY_LENGTH:
        raise Invalid(f"`query` is longer than {MAX_QUERY_LENGTH} characters.", (("/query", "too long"),))
    if search.limit < 1:
        raise Invalid("`limit` must be at least 1.", (("/limit", "out of range"),))
    if search.offset < 0 or search.limit + search.offset > MAX_DEPTH:
        raise Invalid(
            f"A search returns the first {MAX_DEPTH} passages: `limit` plus `offset` must be from 1 to {MAX_DEPTH}.",
            (("/offset", "out of range"),),
        )


class LongTermMemory(AgentStore):
    """Long-term memory for agents: store items and document search (``app.agents.tools.port.LongTerm``)."""

    def __init__(self, store: StoreService, document_search: DocumentSearch, acting_user: ActingUser) -> None:
        super().__init__(store, acting_user)
        self._document_search = document_search

    async def passages(
        self,
        caller: Caller,
        query: str,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """Search passages that answer ``query``. Raises ``Invalid``."""
        search = PassageSearch(
            query=query, collection=collection or None, filter=dict(filter) if filter else None, limit=limit
        )
        return await self._document_search.passages(self._acting_user(caller), search)
