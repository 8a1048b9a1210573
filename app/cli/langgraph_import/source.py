"""The tables of LangGraph's PostgreSQL checkpointer and store."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec

from app.base.errors import StartError
from app.cli.langgraph_import import sql

PAGE = 50
"""Checkpoints, without their channels, that one statement reads."""
THREADS = 500
ITEMS = 1000
SENDS = "__pregel_tasks"
SENDS_IN_CHECKPOINT = 4
"""Version of checkpoints that hold their sends."""

decode = msgspec.json.Decoder().decode


class Source:
    """What the tables of one database hold. Reads only."""

    def __init__(self, connection: asyncpg.Connection, *, threads: bool, items: bool) -> None:
        self._connection = connection
        self.has_threads = threads
        self.has_items = items

    async def count(self) -> tuple[int, int]:
        """Return how many threads and items there are."""
        threads = await self._connection.fetchval(sql.COUNT_THREADS) if self.has_threads else 0
        items = await self._connection.fetchval(sql.COUNT_ITEMS) if self.has_items else 0
        return int(threads), int(items)

    async def threads(self) -> AsyncIterator[str]:
        """Yield the ids of all threads."""
        last = ""
        while self.has_threads:
            rows = await self._connection.fetch(sql.THREADS, last, THREADS)
            for row in rows:
                yield row["thread_id"]
            if len(rows) < THREADS:
                return
            last = rows[-1]["thread_id"]

    async def graph_of(self, thread_id: str) -> str:
        """Return the name of the graph in the thread's first metadata; empty if it has none."""
        rows = await self._connection.fetch(sql.CHECKPOINTS, thread_id, "", "", 1)
        found = decode(rows[0]["metadata"]).get("graph_id") if rows else None
        return found if isinstance(found, str) else ""

    async def checkpoints(self, thread_id: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the rows of each checkpoint of a thread, oldest first, as ``agent_service_graphs.imports`` takes them.

        Channels that are as in the checkpoint before are left out. All are of one moment.
        """
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            under: dict[str, list[Any]] = {}
            for row in await self._connection.fetch(sql.SUBGRAPHS, thread_id):
                under.setdefault(row["root"] or "", []).append(row)
            last, known = "", dict[str, Any]()
            while True:
                rows = await self._connection.fetch(sql.CHECKPOINTS, thread_id, "", last, PAGE)
                for row in rows:
                    found, known = await self._rows_of(thread_id, "", row, known)
                    others = [await self._subgraph(thread_id, one) for one in under.get(row["checkpoint_id"], ())]
                    yield {**found, "subgraphs": others}
                if len(rows) < PAGE:
                    return
                last = rows[-1]["checkpoint_id"]

    async def _subgraph(self, thread_id: str, at: Any) -> dict[str, Any]:
        namespace = at["checkpoint_ns"]
        row = await self._connection.fetchrow(sql.CHECKPOINT, thread_id, namespace, at["checkpoint_id"])
        found, _ = await self._rows_of(thread_id, namespace, row, {})
        return found

    async def _rows_of(
        self, thread_id: str, namespace: str, row: Any, known: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the rows of the checkpoint ``row`` but for channels in the versions ``known``, and its versions."""
        checkpoint = decode(row["checkpoint"])
        versions = checkpoint["channel_versions"]
        wanted = {name: version for name, version in versions.items() if known.get(name) != version}
        at, parent = (thread_id, namespace), row["parent_checkpoint_id"]
        blobs = await self._connection.fetch(sql.BLOBS, *at, msgspec.json.encode(wanted).decode())
        sends: Sequence[Any] = ()
        if checkpoint["v"] < SENDS_IN_CHECKPOINT and parent:
            sends = [one for one in await self._connection.fetch(sql.WRITES, *at, parent) if one["channel"] == SENDS]
        return {
            "id": row["checkpoint_id"],
            "about": decode(row["metadata"]),
            "namespace": namespace,
            "checkpoint": row["checkpoint"].encode(),
            "metadata": row["metadata"].encode(),
            "parent": parent,
            "blobs": [list(one.values()) for one in blobs],
            "writes": [
                list(one.values()) for one in await self._connection.fetch(sql.WRITES, *at, row["checkpoint_id"])
            ],
            "sends": [[one["type"], one["blob"]] for one in sends],
        }, versions

    async def items(self) -> AsyncIterator[list[bytes]]:
        """Yield the items of the store page by page, each as a line of ``agent-service store import``."""
        last = ("", "")
        while self.has_items:
            rows = await self._connection.fetch(sql.ITEMS, *last, ITEMS)
            if rows:
                yield [_line(row) for row in rows]
            if len(rows) < ITEMS:
                return
            last = (rows[-1]["prefix"], rows[-1]["key"])


def _line(row: Any) -> bytes:
    times = {name: row[name] for name in ("created_at", "updated_at", "expires_at") if row[name] is not None}
    about = {"key": row["key"], "value": msgspec.Raw(row["value"].encode()), "ttl": row["ttl_minutes"], **times}
    return msgspec.json.encode({"namespace": row["prefix"].split("."), **about})


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Source]:
    """Connect to the database at ``url``. Raises ``StartError`` if it cannot be reached or has none of the tables."""
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"the database to import from cannot be reached: {error}") from error
    try:
        threads, items = await connection.fetchrow(sql.TABLES)
        if threads and not await connection.fetchval(sql.COLUMNS):
            raise StartError(
                "the table checkpoints of the database to import from is not LangGraph's: name the database, or by "
                "?search_path= in its URL the schema, of langgraph-checkpoint-postgres"
            )
        if not threads and not items:
            raise StartError(
                "the database to import from has no table checkpoints or store: name the database, or by "
                "?search_path= in its URL the schema, of langgraph-checkpoint-postgres"
            )
        yield Source(connection, threads=bool(threads), items=bool(items))
    finally:
        await connection.close()
