"""The engine's store as LangGraph's ``BaseStore``: each batch is one request, within the run's tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.wire import Connection

MAX_REQUESTS = 16
"""Batches of one run that wait for the engine at once; further ones wait in the worker."""


class EngineStore(BaseStore):
    """The store of the run ``run``."""

    supports_ttl = True

    def __init__(self, connection: Connection, run: int) -> None:
        self._connection = connection
        self._run = run
        self._room = asyncio.Semaphore(MAX_REQUESTS)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do ``ops`` in order, from a thread that runs a sync node."""
        results: list[Result] = self._connection.wait_for(self.abatch(ops))
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do ``ops`` in order."""
        every = list(ops)
        async with self._room:
            answers = await self._connection.request(op="store", run=self._run, ops=[_request(one) for one in every])
        return [_result(one, answer) for one, answer in zip(every, answers, strict=True)]


class EmptyStore(BaseStore):
    """The store of a factory that is called for no run, to describe or draw its graph: empty, and read-only."""

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do ``ops``. Raises ``RuntimeError`` for a write."""
        every = list(ops)
        if any(isinstance(op, PutOp) for op in every):
            raise RuntimeError("A factory may write to the store during a run only: check runtime.execution_runtime.")
        return [None if isinstance(op, GetOp) else [] for op in every]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do ``ops`` as ``batch`` does."""
        return self.batch(ops)


def _request(op: Op) -> dict[str, Any]:
    if isinstance(op, GetOp):
        return {"do": "get", "namespace": op.namespace, "key": op.key, "refresh_ttl": op.refresh_ttl}
    if isinstance(op, PutOp):
        value = None if op.value is None else json_of(op.value)
        index = op.index if op.index is None or op.index is False else list(op.index)
        return {"do": "put", "namespace": op.namespace, "key": op.key, "value": value, "index": index, "ttl": op.ttl}
    if isinstance(op, SearchOp):
        return {
            "do": "search",
            "namespace_prefix": op.namespace_prefix,
            "filter": op.filter,
            "limit": op.limit,
            "offset": op.offset,
            "query": op.query,
            "refresh_ttl": op.refresh_ttl,
        }
    if isinstance(op, ListNamespacesOp):
        matching = {one.match_type: one.path for one in op.match_conditions or ()}
        return {
            "do": "namespaces",
            "prefix": matching.get("prefix"),
            "suffix": matching.get("suffix"),
            "max_depth": op.max_depth,
            "limit": op.limit,
            "offset": op.offset,
        }
    raise TypeError(f"{type(op).__name__} is not an operation of a store")


def _result(op: Op, answer: Any) -> Result:
    if isinstance(op, PutOp) or answer is None:
        return None
    if isinstance(op, GetOp):
        return Item(**_fields(answer))
    if isinstance(op, SearchOp):
        return [SearchItem(**_fields(one), score=one.get("score")) for one in answer]
    return [tuple(one) for one in answer]


def _fields(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "namespace": tuple(item["namespace"]),
        "key": item["key"],
        "value": value_of(item["value"]),
        "created_at": datetime.fromisoformat(item["created_at"]),
        "updated_at": datetime.fromisoformat(item["updated_at"]),
    }
