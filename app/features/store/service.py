"""Use cases of the store: put, get, delete and search items, list namespaces."""

import functools
from collections.abc import Sequence

import msgspec

from app.agents.config.store_index import StoreSpec
from app.base.errors import Invalid
from app.base.ids import new_id
from app.base.offload import offload
from app.base.page_bounds import check_page
from app.features.store import queries
from app.features.store.index.indexing import ItemIndexer, ItemWriter, PutEntry
from app.features.store.index.versions import IndexVersions
from app.features.store.search.filters import FilterCondition, conditions_of
from app.features.store.search.hybrid_search import MAX_DEPTH, FoundRow, SearchQuery, StoreSearch, fetch_page
from app.features.store.search.sql import CUSTOM_PLAN_SETTINGS, SEARCH_SETTINGS, SearchScope, newest_items
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch, NamespaceSearch
from app.features.store.validation import key_of, labels_of, namespace_path, path_of, validate_item
from app.infra.db.engine import Database
from app.security.access.structs import Principal

MAX_QUERY_LENGTH = 8000
"""Characters."""


class StoreService:
    """The items of all tenants. The operator's auth handlers may map a principal to other namespaces.

    They deny access with ``Forbidden`` or ``Refused``.
    """

    def __init__(self, database: Database, versions: IndexVersions, spec: StoreSpec) -> None:
        """``spec``: default time to live. ``versions``: how items are indexed."""
        self._database = database
        self._versions = versions
        self._spec = spec
        self.indexing = ItemIndexer(versions)
        self._writer = ItemWriter(database)
        self._search = StoreSearch()

    async def open(self) -> None:
        """Load the index versions and start to accept puts."""
        await self._versions.open()
        self._writer.start()

    async def aclose(self) -> None:
        """Stop; puts in progress fail with ``Unavailable``."""
        await self._writer.aclose()
        await self._versions.aclose()

    async def put(self, principal: Principal, body: ItemPut) -> None:
        """Store or replace an item. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        if principal.rules is not None:
            value = msgspec.json.decode(body.value)
            namespace = await principal.resolve_namespace(
                "put", body.namespace, key=body.key, value=value, index=body.index
            )
            body = msgspec.structs.replace(body, namespace=namespace or [])
        item = validate_item(body, self._spec.ttl)
        indexed = await self.indexing.index_item(item.path, item.value, body.index, tenant_id)
        await self._writer.put(
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
        """Return an item, None if it does not exist. Raises ``Invalid`` if its name is invalid."""
        path, key = namespace_path(await principal.resolve_namespace("get", namespace, key=key) or []), key_of(key)
        async with self._database.writing(principal.tenant_id) as session:
            row = await queries.get(session, principal.tenant_id, path, key, refresh=self._refreshes(refresh_ttl))
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
        """Delete an item if it exists. Raises ``Invalid`` if its name is invalid."""
        path, key = namespace_path(await principal.resolve_namespace("delete", namespace, key=key) or []), key_of(key)
        async with self._database.writing(principal.tenant_id) as session:
            await queries.delete(session, principal.tenant_id, path, key)

    async def search(self, principal: Principal, search: ItemSearch) -> tuple[list[FoundItem], int | None]:
        """Return a page of items, and the next offset if it was cut because they are large. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        about = {name: getattr(search, name) for name in ("filter", "limit", "offset", "query")}
        prefix = await principal.resolve_namespace("search", search.namespace_prefix, **about)
        check_page(search.limit, search.offset)
        scope = SearchScope(tenant_id, path_of(prefix or [], "namespace_prefix"))
        conditions = conditions_of(search.filter)
        query = await self._query(scope, search, conditions)
        async with self._database.tuned(tenant_id, SEARCH_SETTINGS if query else CUSTOM_PLAN_SETTINGS) as connection:
            if query is None:
                build = functools.partial(newest_items, scope, conditions)
                rows, cut = await fetch_page(connection, build, search.limit, search.offset)
                found = [FoundRow(row, None) for row in rows]
            else:
                found, cut = await self._search.page(connection, query)
            expiring = [one.row["item_id"] for one in found if one.row["ttl_minutes"] is not None]
            if expiring and self._refreshes(search.refresh_ttl):
                await connection.execute(queries.REFRESH_TTL, tenant_id, expiring)
        size = sum(len(one.row["value"]) for one in found)
        return await offload(size, _items, found), search.offset + len(found) if cut else None

    async def _query(
        self, scope: SearchScope, search: ItemSearch, conditions: Sequence[FilterCondition]
    ) -> SearchQuery | None:
        """Return the query, None if the search has none. Raises ``Invalid``."""
        text = (search.query or "").strip()
        if not text:
            return None
        if len(text) > MAX_QUERY_LENGTH:
            raise Invalid(f"`query` is longer than {MAX_QUERY_LENGTH} characters.", (("/query", "too long"),))
        if search.limit + search.offset > MAX_DEPTH:
            raise Invalid(
                f"A search with a `query` returns the first {MAX_DEPTH} items: `limit` plus `offset` is larger.",
                (("/offset", "out of range"),),
            )
        return SearchQuery(
            scope=scope,
            text=text,
            near=await self.indexing.index_query(scope.path, text, scope.tenant_id),
            conditions=conditions,
            limit=search.limit,
            offset=search.offset,
        )

    def _refreshes(self, requested: bool | None) -> bool:
        return self._spec.refresh_on_read if requested is None else requested

    async def namespaces(self, principal: Principal, search: NamespaceSearch) -> list[list[str]]:
        """Return a page of namespaces. Raises ``Invalid``."""
        about = {name: getattr(search, name) for name in ("suffix", "max_depth", "limit", "offset")}
        search = msgspec.structs.replace(
            search, prefix=await principal.resolve_namespace("list_namespaces", search.prefix, **about)
        )
        check_page(search.limit, search.offset)
        if search.max_depth is not None and not 1 <= search.max_depth < 2**31:
            raise Invalid("`max_depth` must be at least 1.", (("/max_depth", "out of range"),))
        path_of(search.prefix or [], "prefix")
        path_of(search.suffix or [], "suffix")
        async with self._database.reading(principal.tenant_id) as session:
            found = await queries.namespaces(session, principal.tenant_id, search)
        return [namespace.split(".") for namespace in found]


def _items(found: Sequence[FoundRow]) -> list[FoundItem]:
    return [_item(one) for one in found]


def _item(found: FoundRow) -> FoundItem:
    row = found.row
    return FoundItem(
        namespace=labels_of(row["namespace"]),
        key=row["key"],
        value=msgspec.Raw(row["value"].encode()),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        score=found.score,
    )
