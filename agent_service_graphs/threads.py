"""Checkpoints that a run does not have in memory: older ones, and those of other threads, which the engine stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from agent_service_graphs.checkpoints import Document, Record
from agent_service_graphs.documents import HEAD, Codec
from agent_service_graphs.projection import value_of
from agent_service_graphs.wire import Connection

PAGE = 20
"""Stored checkpoints of a thread that one request returns."""


class ThreadStore:
    """The threads of the run's tenant, as far as the run's caller may use them. Raises ``EngineError``.

    ``own`` is the id of the run's own thread, ``codec`` that of its document. ``types``: which other graphs have added.
    """

    def __init__(self, connection: Connection, run: int, own: str, codec: Codec) -> None:
        self.own = own
        self.types = frozenset[tuple[str, ...]]()
        self._connection = connection
        self._run = run
        self._codec = codec
        self._lock = asyncio.Lock()
        self._newest: dict[str, tuple[str | None, Document]] = {}

    def wait_for(self, work: Any) -> Any:
        """Wait for ``work`` in a thread that runs a sync node. Raises ``RuntimeError`` in the event loop."""
        return self._connection.wait_for(work)

    async def _request(self, do: str, **about: Any) -> Any:
        return await self._connection.request(op="threads", run=self._run, what={"do": do, **about})

    async def _rows(self, thread_id: str, page: int = PAGE) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield id and values of a thread's stored checkpoints, newest first."""
        before: str | None = None
        while True:
            rows = await self._request("read", thread=thread_id, before=before, limit=page)
            for row in rows:
                yield row["id"], row["values"]
            if len(rows) < page:
                return
            before = rows[-1]["id"]

    async def history(self, thread_id: str, namespace: str) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints of a thread in ``namespace``, newest first."""
        seen: set[str] = set()
        async for _, values in self._rows(thread_id):
            id_ = _checkpoint_id(values, namespace)
            if id_ in seen:
                continue  # of a row that adds an input, which the graph has not read yet
            found = Document(values, "", self._codec.serde).find(namespace, None)
            if found is not None:
                seen.add(found.checkpoint["id"])
                yield found.tuple_for(thread_id)

    async def get(self, thread_id: str, namespace: str, checkpoint_id: str | None) -> CheckpointTuple | None:
        """Return a checkpoint of a thread; the newest in the namespace without a ``checkpoint_id``."""
        async for found in self.history(thread_id, namespace):
            if checkpoint_id in {None, found.checkpoint["id"]}:
                return found
        return None

    async def put(self, thread_id: str, record: Record) -> None:
        """Store ``record`` as the newest checkpoint of another thread, which is created if it does not exist.

        Refused while that thread has a run, and if it has been changed since it was read.
        """
        async with self._lock:
            row, document = await self._newest_of(thread_id)
            document.put(record, list(record.checkpoint["channel_values"]))
            added = row is None or not record.namespace
            await self._write(thread_id, row, document, added=added, metadata=record.metadata)

    async def put_writes(self, at: dict[str, Any], writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """Store the writes of a task with the checkpoint ``at`` of another thread."""
        thread_id, namespace = str(at["thread_id"]), at.get("checkpoint_ns") or ""
        async with self._lock:
            row, document = await self._newest_of(thread_id)
            record = document.find(namespace, at.get("checkpoint_id"))
            if record is not None:
                document.put_writes(record, writes, task, path)
                await self._write(thread_id, row, document, added=False)
                return
            async for row, values in self._rows(thread_id):
                older = Document(values, "", self._codec.serde)
                record = older.find(namespace, at.get("checkpoint_id"))
                if record is not None:
                    older.put_writes(record, writes, task, path)
                    await self._request("write", thread=thread_id, at=row, added=False, changes=older.take_changes())
                    return

    async def _newest_of(self, thread_id: str) -> tuple[str | None, Document]:
        if thread_id not in self._newest:
            found: tuple[str | None, Document] = (None, Document({}, "", self._codec.serde))
            async for row, values in self._rows(thread_id, 1):
                found = (row, Document(values, "", self._codec.serde))
                break
            self._newest[thread_id] = found
        self._newest[thread_id][1].allow(self.types)
        return self._newest[thread_id]

    async def _write(self, thread_id: str, row: str | None, document: Document, **about: Any) -> None:
        del self._newest[thread_id]  # read again if this fails
        metadata = about.pop("metadata", {})
        run_id, source = str(metadata.get("run_id") or ""), str(metadata.get("source") or "")
        changes = document.take_changes()
        about |= {"changes": changes, "run_id": run_id, "source": source}
        self._newest[thread_id] = (await self._request("write", thread=thread_id, at=row, **about), document)

    async def delete(self, thread_id: str) -> None:
        """Delete a thread without a run."""
        self._newest.pop(thread_id, None)
        await self._request("delete", threads=[thread_id])

    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that runs have made."""
        self._newest.clear()
        await self._request("delete_runs", runs=[str(one) for one in run_ids])

    async def copy(self, source: str, target: str) -> None:
        """Copy a thread with its history; nothing happens if it does not exist."""
        self._newest.pop(target, None)
        await self._request("copy", thread=source, target=target)

    async def prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        """Delete the threads, or all their checkpoints but the newest, which holds all values that it needs."""
        if strategy == "delete":
            for thread_id in thread_ids:
                self._newest.pop(thread_id, None)
        await self._request("delete" if strategy == "delete" else "prune", threads=list(thread_ids))


def _checkpoint_id(values: dict[str, Any], namespace: str) -> str | None:
    """Return the id of the checkpoint in ``namespace``, without decoding the others; None if it is not at hand."""
    if namespace or HEAD not in values:
        return None
    found: str = value_of(values[HEAD])["id"]
    return found
