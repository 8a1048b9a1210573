"""What clients do with the store."""

import math
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.errors import Invalid
from app.base.ids import new_id
from app.db.engine import Database
from app.store import queries
from app.store.filters import conditions_of
from app.store.names import key_of, labels_of, path_of, place_of
from app.store.structs import FoundItem, Item, ItemPut, ItemSearch, NamespaceSearch
from app.store.writing import Put, Writing

LARGEST = 512 * 1024
"""Bytes of a value, as JSON."""

MOST = 1000
LONGEST_TTL = 10 * 366 * 24 * 60
"""Minutes."""


class StoreService:
    """The items of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = Writing(database)
        self.start = self._writing.start
        self.aclose = self._writing.aclose

    async def put(self, tenant_id: UUID, body: ItemPut) -> None:
        """Store an item, in place of one that has its name. Raises ``Invalid``."""
        place, key = place_of(body.namespace), key_of(body.key)
        _value_in(body.value)
        if body.index is True:
            raise Invalid("`index` is false, a list of fields, or null.", (("/index", "true is the default"),))
        ttl = None if body.ttl is msgspec.UNSET else body.ttl
        await self._writing.put(
            Put(
                tenant_id=tenant_id,
                namespace=place,
                key=key,
                item_id=new_id(),
                value=bytes(body.value).decode(),
                index=None,
                words=None,
                version=0,
                ttl_minutes=_ttl(ttl),
            )
        )

    async def get(self, tenant_id: UUID, namespace: list[str], key: str, refresh_ttl: bool | None) -> Item | None:
        """An item; None for one that is not there. Raises ``Invalid`` for a name that cannot be."""
        place, key = place_of(namespace), key_of(key)
        async with self._database.writing(tenant_id) as session:
            row = await queries.get(session, tenant_id, place, key, refresh=refresh_ttl is not False)
        if row is None:
            return None
        return Item(
            namespace=labels_of(row.namespace),
            key=row.key,
            value=msgspec.Raw(row.value.encode()),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    async def delete(self, tenant_id: UUID, namespace: list[str], key: str) -> None:
        """Remove an item, if it is there. Raises ``Invalid`` for a name that cannot be."""
        place, key = place_of(namespace), key_of(key)
        async with self._database.writing(tenant_id) as session:
            await queries.delete(session, tenant_id, place, key)

    async def search(self, tenant_id: UUID, wanted: ItemSearch) -> list[FoundItem]:
        """A page of items. Raises ``Invalid``."""
        _check_page(wanted.limit, wanted.offset)
        path = path_of(wanted.namespace_prefix, "namespace_prefix")
        conditions = [*queries.below(tenant_id, path), *conditions_of(wanted.filter)]
        async with self._database.writing(tenant_id) as session:
            rows = await queries.newest(session, conditions, wanted.limit, wanted.offset)
            lasting = [row.item_id for row in rows if row.ttl_minutes is not None]
            if lasting and wanted.refresh_ttl is not False:
                await queries.refresh(session, tenant_id, lasting)
        return [_found(row) for row in rows]

    async def namespaces(self, tenant_id: UUID, wanted: NamespaceSearch) -> list[list[str]]:
        """A page of namespaces. Raises ``Invalid``."""
        _check_page(wanted.limit, wanted.offset)
        if wanted.max_depth is not None and not 1 <= wanted.max_depth < 2**31:
            raise Invalid("`max_depth` must be at least 1.", (("/max_depth", "out of range"),))
        path_of(wanted.prefix or [], "prefix")
        path_of(wanted.suffix or [], "suffix")
        async with self._database.reading(tenant_id) as session:
            found = await queries.namespaces(session, tenant_id, wanted)
        return [namespace.split(".") for namespace in found]


def _value_in(raw: msgspec.Raw) -> dict[str, Any]:
    if len(bytes(raw)) > LARGEST:
        raise Invalid(f"`value` is larger than {LARGEST} bytes.", (("/value", "too large"),))
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid(f"`value` cannot be stored: {str(error).lower()}.", (("/value", "not acceptable"),)) from error
    if not isinstance(value, dict):
        raise Invalid("`value` must be an object.", (("/value", "must be an object"),))
    return value


def _ttl(minutes: float | None) -> float | None:
    if minutes is not None and not (math.isfinite(minutes) and 0 < minutes <= LONGEST_TTL):
        raise Invalid(
            f"`ttl` is a number of minutes above 0 and at most {LONGEST_TTL}, or null.", (("/ttl", "out of range"),)
        )
    return minutes


def _check_page(limit: int, offset: int) -> None:
    if not 1 <= limit <= MOST:
        raise Invalid(f"`limit` must be from 1 to {MOST}.", (("/limit", "out of range"),))
    if not 0 <= offset < 2**31:
        raise Invalid("`offset` must be at least 0.", (("/offset", "out of range"),))


def _found(row: Row[Any]) -> FoundItem:
    return FoundItem(
        namespace=labels_of(row.namespace),
        key=row.key,
        value=msgspec.Raw(row.value.encode()),
        created_at=row.created_at,
        updated_at=row.updated_at,
        score=getattr(row, "score", None),
    )
