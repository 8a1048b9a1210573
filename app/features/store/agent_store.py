"""The store for agents: behind the tool ``memory`` and ``context.store`` of function agents."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.agents.tools.port import Fields, StoredItem
from app.domain.caller import Caller
from app.features.store.service import StoreService
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch
from app.security.access.structs import ActingUser, tenant_itself


class AgentStore:
    """Store access for agents, with the rights of each run's caller (``app.agents.tools.port.LongTerm``)."""

    def __init__(self, store: StoreService, acting_user: ActingUser = tenant_itself) -> None:
        """``acting_user`` maps a run's caller to its principal."""
        self._store = store
        self._acting_user = acting_user

    async def put(
        self, caller: Caller, namespace: list[str], key: str, value: Mapping[str, Any], index: Fields = None
    ) -> None:
        """Store or replace an item. Raises ``Invalid``."""
        raw = msgspec.Raw(msgspec.json.encode(value))
        await self._store.put(self._acting_user(caller), ItemPut(namespace=namespace, key=key, value=raw, index=index))

    async def get(self, caller: Caller, namespace: list[str], key: str) -> StoredItem | None:
        """Return an item, None if it does not exist. Raises ``Invalid``."""
        item = await self._store.get(self._acting_user(caller), namespace, key, None)
        return None if item is None else _stored_item(item)

    async def delete(self, caller: Caller, namespace: list[str], key: str) -> None:
        """Delete an item if it exists. Raises ``Invalid``."""
        await self._store.delete(self._acting_user(caller), namespace, key)

    async def search(
        self,
        caller: Caller,
        prefix: list[str],
        query: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Search at and below ``prefix``: the best first, the newest first without a ``query``. Raises ``Invalid``."""
        search = ItemSearch(
            namespace_prefix=prefix, query=query or None, filter=dict(filter) if filter else None, limit=limit
        )
        found, _ = await self._store.search(self._acting_user(caller), search)
        return [_stored_item(item) for item in found]


def _stored_item(item: Item) -> StoredItem:
    score = item.score if isinstance(item, FoundItem) else None
    return StoredItem(namespace=item.namespace, key=item.key, value=msgspec.json.decode(item.value), score=score)
