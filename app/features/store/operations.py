"""The store for hosted graphs: operations of LangGraph's ``BaseStore``, with the rights of each run's caller."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from app.agents.langgraph.store import read_operation
from app.base import json_scan
from app.base.errors import Invalid
from app.domain.caller import Caller
from app.features.store.service import StoreService
from app.features.store.structs import FoundItem, Item, ItemPut, ItemSearch, NamespaceSearch
from app.infra.db.repeating import repeated
from app.security.access.structs import ActingUser, Principal, tenant_itself

Value = TypeVar("Value")


class _ItemOperation(msgspec.Struct, kw_only=True):
    """A get, a put or a deletion without the value; ``ttl`` in minutes."""

    namespace: list[str]
    key: str
    refresh_ttl: bool | None = None
    index: bool | list[str] | None = None
    ttl: float | None = None


class StoreOperations:
    """Does the operations that a graph requests (``app.agents.langgraph.store.Operations``)."""

    def __init__(self, store: StoreService, acting_user: ActingUser = tenant_itself) -> None:
        """``acting_user`` maps a run's caller to its principal."""
        self._store = store
        self._acting_user = acting_user

    async def operate(self, caller: Caller, op: dict[str, Any], check_lease: Callable[[], None]) -> Any:
        """Do ``op`` and return its result; again if the database lost it, as twice is as good as once.

        Raises ``Invalid``, ``BadRequest``, ``Unavailable``, ``LeaseLost``, and what auth handlers raise.
        """
        return await repeated(partial(self._operate, self._acting_user(caller), op), check_lease)

    async def _operate(self, principal: Principal, op: dict[str, Any]) -> Any:
        match op["do"]:
            case "get":
                got = _typed(op, _ItemOperation)
                item = await self._store.get(principal, got.namespace, got.key, got.refresh_ttl)
                return None if item is None else _shown(item)
            case "put":
                put = _typed({name: given for name, given in op.items() if name != "value"}, _ItemOperation)
                if op["value"] is None:
                    return await self._store.delete(principal, put.namespace, put.key)
                json_scan.check(op["value"], "`value`")
                ttl = msgspec.UNSET if put.ttl is None else put.ttl
                raw = msgspec.Raw(op["value"])
                body = ItemPut(namespace=put.namespace, key=put.key, value=raw, index=put.index, ttl=ttl)
                return await self._store.put(principal, body)
            case "search":
                found, _ = await self._store.search(principal, _typed(op, ItemSearch))
                return [_shown(item) for item in found]
            case "namespaces":
                return await self._store.namespaces(principal, _typed(op, NamespaceSearch))
            case other:
                raise Invalid(f"{other!r} is no operation of the store.")


def _typed(op: dict[str, Any], kind: type[Value]) -> Value:
    return read_operation(op, kind, "store operation")


def _shown(item: Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "value": bytes(item.value),
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
        "score": item.score if isinstance(item, FoundItem) else None,
    }
