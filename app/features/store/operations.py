"""The store for hosted graphs: operations of LangGraph's ``BaseStore``, with the rights of each run's caller."""

from typing import Any

import msgspec

from app.base.errors import Invalid
from app.domain.caller import Caller
from app.features.store.service import StoreService
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch, NamespaceSearch
from app.security.access.structs import ActingUser, tenant_itself


class StoreOperations:
    """Does the operations that a graph requests (``app.agents.langgraph.store.Operations``)."""

    def __init__(self, store: StoreService, acting_user: ActingUser = tenant_itself) -> None:
        """``acting_user`` maps a run's caller to its principal."""
        self._store = store
        self._acting_user = acting_user

    async def operate(self, caller: Caller, op: dict[str, Any]) -> Any:
        """Do ``op`` and return its result. Raises ``Invalid``, and what the operator's auth handlers raise."""
        principal, namespace = self._acting_user(caller), list(op.get("namespace") or ())
        match op["do"]:
            case "get":
                item = await self._store.get(principal, namespace, op["key"], op["refresh_ttl"])
                return None if item is None else _shown(item)
            case "put" if op["value"] is None:
                return await self._store.delete(principal, namespace, op["key"])
            case "put":
                raw = msgspec.Raw(op["value"])
                ttl = msgspec.UNSET if op["ttl"] is None else op["ttl"]
                body = ItemPut(namespace=namespace, key=op["key"], value=raw, index=op["index"], ttl=ttl)
                return await self._store.put(principal, body)
            case "search":
                fields = {name: op[name] for name in ("filter", "limit", "offset", "query", "refresh_ttl")}
                found, _ = await self._store.search(principal, ItemSearch(namespace_prefix=namespace, **fields))
                return [_shown(item) for item in found]
            case "namespaces":
                fields = {name: op[name] for name in ("prefix", "suffix", "max_depth", "limit", "offset")}
                return await self._store.namespaces(principal, NamespaceSearch(**fields))
            case other:
                raise Invalid(f"{other!r} is no operation of the store.")


def _shown(item: Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "value": bytes(item.value),
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
        "score": item.score if isinstance(item, FoundItem) else None,
    }
