"""The store as agents see it: the tool ``memory``, and ``context.store`` of function agents."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.agents.tools.port import Fields, StoredItem
from app.domain.caller import Caller
from app.features.store.service import StoreService
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch
from app.security.access.structs import ActingUser, tenant_itself


class AgentStore:
    """The items of all tenants for agents in this process (``app.agents.tools.port.LongTerm``)."""

    def __init__(self, store: StoreService, acting: ActingUser = tenant_itself) -> None:
        """``acting`` knows how far callers reach."""
        self._store = store
        self._acting = acting

    async def put(
        self, caller: Caller, namespace: list[str], key: str, value: Mapping[str, Any], index: Fields = None
    ) -> None:
        """Store ``value``, in place of what is there. Raises ``Invalid``."""
        raw = msgspec.Raw(msgspec.json.encode(value))
        await self._store.put(self._acting(caller), ItemPut(namespace=namespace, key=key, value=raw, index=index))

    async def get(self, caller: Caller, namespace: list[str], key: str) -> StoredItem | None:
        """What is there. Raises ``Invalid``."""
        item = await self._store.get(self._acting(caller), namespace, key, None)
        return None if item is None else _kept(item)

    async def delete(self, caller: Caller, namespace: list[str], key: str) -> None:
        """Remove what is there. Raises ``Invalid``."""
        await self._store.delete(self._acting(caller), namespace, key)

    async def search(
        self,
        caller: Caller,
        prefix: list[str],
        query: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Items at and below ``prefix``, the best first, or the newest without a ``query``. Raises ``Invalid``."""
        wanted = ItemSearch(
            namespace_prefix=prefix, query=query or None, filter=dict(filter) if filter else None, limit=limit
        )
        found, _ = await self._store.search(self._acting(caller), wanted)
        return [_kept(item) for item in found]


def _kept(item: Item) -> StoredItem:
    score = item.score if isinstance(item, FoundItem) else None
    return StoredItem(namespace=item.namespace, key=item.key, value=msgspec.json.decode(item.value), score=score)
