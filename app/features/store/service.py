"""What clients do with the store."""

import functools
from collections.abc import Sequence

import msgspec

from app.agents.config.store_index import StoreSpec
from app.base.errors import Invalid
from app.base.ids import new_id
from app.base.offload import offload
from app.features.store import queries
from app.features.store.index.indexing import ItemIndexer, ItemWriter, PutEntry
from app.features.store.index.versions import IndexVersions
from app.features.store.search.filters import FilterCondition, conditions_of
from app.features.store.search.hybrid_search import MAX_DEPTH, FoundRow, SearchQuery, StoreSearch, fetch_page
from app.features.store.search.sql import PLANNED_ANEW, SETTINGS, SearchScope, newest
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch, NamespaceSearch
from app.features.store.validation import key_of, labels_of, namespace_path, path_of, validated_item
from app.infra.db.engine import Database
from app.security.access.structs import Principal

MAX_PAGE_SIZE = 1000
MAX_QUERY_LENGTH = 8000
"""Characters."""


class StoreService:
    """The items of all tenants. Where handlers of the operator's say so, a principal's namespaces are others.

    What they do not let it do raises ``Forbidden`` or ``Refused``.
    """

    def __init__(self, database: Database, versions: IndexVersions, spec: StoreSpec) -> None:
        """``spec`` says how long items stay; ``versions``, how they are indexed."""
        self._database = database
        self._versions = versions
        self._spec = spec
        self.indexing = ItemIndexer(versions)
        self._writing = ItemWriter(database)
        self._searching = StoreSearch()

    async def open(self) -> None:
        """See which versions of the index there are, and begin to take puts."""
        await self._versions.open()
        self._writing.start()

    async def aclose(self) -> None:
        """Stop; puts on their way fail with ``Unavailable``."""
        await self._writing.aclose()
        await self._versions.aclose()

    async def put(self, principal: Principal, body: ItemPut) -> None:
        """Store an item, in place of one that has its name. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        if principal.rules is not None:
            value = msgspec.json.decode(body.value)
            place = await principal.resolve_namespace(
                "put", body.namespace, key=body.key, value=value, index=body.index
            )
            body = msgspec.structs.replace(body, namespace=place or [])
        item = validated_item(body, self._spec.ttl)
        indexed = await self.indexing.item(item.path, item.value, body.index, tenant_id)
        await self._writing.put(
            PutEntry(
                tenant_id=tenant_id,
                namespace=item.path,
                key=item.key,
                item_id=new_id(),
                value=item.text,
                index=item.index,
                words=indexed.words,
                version=indexed.version,
                ttl_minutes=item.ttl_minutes,
                vectors=indexed.vectors,
            )
        )

    async def get(self, principal: Principal, namespace: list[str], key: str, refresh_ttl: bool | None) -> Item | None:
        """An item; None for one that is not there. Raises ``Invalid`` for a name that cannot be."""
        place, key = namespace_path(await principal.resolve_namespace("get", namespace, key=key) or []), key_of(key)
        async with self._database.writing(principal.tenant_id) as session:
            row = await queries.get(session, principal.tenant_id, place, key, refresh=self._refreshes(refresh_ttl))
        if row is None:
            return None
        return Item(
            namespace=labels_of(row.namespace),
            key=row.key,
            value=msgspec.Raw(row.value.encode()),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    async def delete(self, principal: Principal, namespace: list[str], key: str) -> None:
        """Remove an item, if it is there. Raises ``Invalid`` for a name that cannot be."""
        place, key = namespace_path(await principal.resolve_namespace("delete", namespace, key=key) or []), key_of(key)
        async with self._database.writing(principal.tenant_id) as session:
            await queries.delete(session, principal.tenant_id, place, key)

    async def search(self, principal: Principal, wanted: ItemSearch) -> tuple[list[FoundItem], int | None]:
        """A page of items, and the offset that goes on where large ones cut it short. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        about = {name: getattr(wanted, name) for name in ("filter", "limit", "offset", "query")}
        prefix = await principal.resolve_namespace("search", wanted.namespace_prefix, **about)
        _check_page(wanted.limit, wanted.offset)
        place = SearchScope(tenant_id, path_of(prefix or [], "namespace_prefix"))
        conditions = conditions_of(wanted.filter)
        question = await self._question(place, wanted, conditions)
        async with self._database.tuned(tenant_id, SETTINGS if question else PLANNED_ANEW) as connection:
            if question is None:
                ask = functools.partial(newest, place, conditions)
                rows, cut = await fetch_page(connection, ask, wanted.limit, wanted.offset)
                found = [FoundRow(row, None) for row in rows]
            else:
                found, cut = await self._searching.page(connection, question)
            lasting = [one.row["item_id"] for one in found if one.row["ttl_minutes"] is not None]
            if lasting and self._refreshes(wanted.refresh_ttl):
                await connection.execute(queries.REFRESH, tenant_id, lasting)
        size = sum(len(one.row["value"]) for one in found)
        return await offload(size, _shown, found), wanted.offset + len(found) if cut else None

    async def _question(
        self, place: SearchScope, wanted: ItemSearch, conditions: Sequence[FilterCondition]
    ) -> SearchQuery | None:
        """What is asked; None without a ``query``. Raises ``Invalid``."""
        text = (wanted.query or "").strip()
        if not text:
            return None
        if len(text) > MAX_QUERY_LENGTH:
            raise Invalid(f"`query` is longer than {MAX_QUERY_LENGTH} characters.", (("/query", "too long"),))
        if wanted.limit + wanted.offset > MAX_DEPTH:
            raise Invalid(
                f"A search with a `query` goes {MAX_DEPTH} items deep: limit and offset together are more.",
                (("/offset", "out of range"),),
            )
        return SearchQuery(
            place=place,
            text=text,
            near=await self.indexing.question(place.path, text, place.tenant_id),
            conditions=conditions,
            limit=wanted.limit,
            offset=wanted.offset,
        )

    def _refreshes(self, asked: bool | None) -> bool:
        return self._spec.refresh_on_read if asked is None else asked

    async def namespaces(self, principal: Principal, wanted: NamespaceSearch) -> list[list[str]]:
        """A page of namespaces. Raises ``Invalid``."""
        about = {name: getattr(wanted, name) for name in ("suffix", "max_depth", "limit", "offset")}
        wanted = msgspec.structs.replace(
            wanted, prefix=await principal.resolve_namespace("list_namespaces", wanted.prefix, **about)
        )
        _check_page(wanted.limit, wanted.offset)
        if wanted.max_depth is not None and not 1 <= wanted.max_depth < 2**31:
            raise Invalid("`max_depth` must be at least 1.", (("/max_depth", "out of range"),))
        path_of(wanted.prefix or [], "prefix")
        path_of(wanted.suffix or [], "suffix")
        async with self._database.reading(principal.tenant_id) as session:
            found = await queries.namespaces(session, principal.tenant_id, wanted)
        return [namespace.split(".") for namespace in found]


def _check_page(limit: int, offset: int) -> None:
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise Invalid(f"`limit` must be from 1 to {MAX_PAGE_SIZE}.", (("/limit", "out of range"),))
    if not 0 <= offset < 2**31:
        raise Invalid("`offset` must be at least 0.", (("/offset", "out of range"),))


def _shown(found: Sequence[FoundRow]) -> list[FoundItem]:
    return [_found(one) for one in found]


def _found(found: FoundRow) -> FoundItem:
    row = found.row
    return FoundItem(
        namespace=labels_of(row["namespace"]),
        key=row["key"],
        value=msgspec.Raw(row["value"].encode()),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        score=found.score,
    )
