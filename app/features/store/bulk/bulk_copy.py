"""Bulk import: COPY items into staging tables, then merge each batch with one statement in one transaction.

HNSW indexes may be dropped for a bulk load and rebuilt after it, which takes a fraction of the time. Reads and writes
continue during both; searches are slower, since they compare every vector of a tenant.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import Conflict, StartError
from app.features.store.bulk import sql
from app.features.store.bulk.json_lines import PreparedItem
from app.features.store.bulk.sql import STAGED_COLUMNS, ConflictPolicy
from app.features.store.validation import labels_of
from app.features.store.vectors import prepare_connection


class BulkResult(msgspec.Struct):
    """Counts of a batch: items that were new, replaced another, or were skipped because one exists.

    ``unembedded``: stored items that lack vectors.
    """

    new: int = 0
    replaced: int = 0
    skipped: int = 0
    unembedded: int = 0


class BulkLoader:
    """Stores items of one tenant over a ``connection`` of its own. Call ``open`` before the first use."""

    def __init__(self, connection: asyncpg.Connection, tenant_id: UUID, policy: ConflictPolicy) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._policy: ConflictPolicy = policy

    async def open(self) -> None:
        """Create the staging tables, which are temporary tables of this connection."""
        await prepare_connection(self._connection)
        await self._connection.execute(sql.CREATE_STAGING)

    async def store(self, items: Sequence[PreparedItem]) -> BulkResult:
        """Store ``items``, whose names are distinct: all or none.

        Raises ``Conflict`` if the policy is ``fail`` and an item exists.
        """
        rows = [
            tuple(getattr(item, name if name != "namespace" else "path") for name in STAGED_COLUMNS) for item in items
        ]
        vectors: dict[int, list[tuple[object, ...]]] = {}
        for item in items:
            for one in item.vectors:
                vectors.setdefault(one.width, []).append((item.item_id, one.space, one.part, item.path, one.vector))
        connection = self._connection
        async with connection.transaction():
            await connection.copy_records_to_table("staged_items", records=rows, columns=list(STAGED_COLUMNS))
            for width, some in vectors.items():
                await connection.copy_records_to_table(f"staged_{width}", records=some)
            await connection.execute(sql.MERGE_SETTINGS)
            if self._policy == "fail":
                existing = await connection.fetchrow(sql.FIRST_CONFLICT, self._tenant_id)
                if existing is not None:
                    raise Conflict(f"{labels_of(existing['namespace'])} {existing['key']!r} exists already")
            row = await connection.fetchrow(sql.merge_staged(self._policy, sorted(vectors)), self._tenant_id)
            assert row is not None
            if self._policy == "fail" and row["new"] + row["replaced"] < len(items):
                raise Conflict("an item was created at the same time")
        return BulkResult(row["new"], row["replaced"], len(items) - row["new"] - row["replaced"], row["unembedded"])


@contextlib.asynccontextmanager
async def without_hnsw_indexes(url: str, tables: list[str], on_progress: Callable[[str], None]) -> AsyncIterator[None]:
    """Drop the HNSW indexes of ``tables`` and rebuild them after the block, as the tables' owner at ``url``.

    ``on_progress`` is called before each step. Raises ``StartError`` with the statement to run if an index cannot be
    rebuilt.
    """
    indexes = await _with_owner(url, lambda connection: connection.fetch(sql.FIND_HNSW_INDEXES, tables))
    for index in indexes:
        on_progress(f"dropping the index {index['name']}")
        await _with_owner(url, _statement(sql.DROP_INDEX + index["name"]))
    try:
        yield
    finally:
        for index in indexes:
            on_progress(f"building the index {index['name']}")
            await _build(url, index["name"], index["definition"])


async def _build(url: str, name: str, definition: str) -> None:
    statement = sql.build_concurrently(definition)

    async def build(connection: asyncpg.Connection) -> None:
        await connection.execute(sql.INDEX_BUILD_SETTINGS)
        await connection.execute(statement)

    try:
        await _with_owner(url, build)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(
            f"the index {name} is not built ({type(error).__name__}), searches are slow without it; build it with: "
            f'drop index if exists "{name}"; {definition}'
        ) from error


async def _with_owner(url: str, use: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await use(connection)
    finally:
        await connection.close()


def _statement(text: str) -> Callable[[asyncpg.Connection], Awaitable[Any]]:
    return lambda connection: connection.execute(text)
