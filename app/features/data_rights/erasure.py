"""Erase the data of a tenant or of one person in it, in small transactions, while servers run.

Live runs are cancelled first. A thread is deleted with everything on it under its lock, as ``DELETE /threads/{id}``
does. Rounds repeat until every table is empty, which covers data that arrives during the erasure. Stored responses of
requests with an ``Idempotency-Key`` are erased too: no column of theirs refers to the data they copy.
"""

import asyncio
import functools
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import StartError
from app.engine.queue.cancels.canceller import RunCanceller
from app.engine.streams.signals import Signals
from app.features.data_rights import queries
from app.features.data_rights.queries import ROOTS, Column, TenantTable
from app.features.data_rights.structs import DataSubject
from app.infra.db.engine import Database
from app.infra.db.pool import APP_ROLE

BATCH_ROWS = 5_000
"""Rows of a table without owner per transaction."""

BATCH_ITEMS = 20_000
"""Log items of threads per transaction, unless a single thread has more."""

ROUND_DELAY = 0.25
"""Seconds between two rounds."""

KEY_CACHE_SECONDS = 6.0
"""How long a deleted key may still be accepted, because processes cache lookups."""

SETTLE_SECONDS = 1.5
"""How long after the last request a server may still write usage and audit events of the tenant."""


async def delete_responses(connection: asyncpg.Connection, data_subject: DataSubject) -> int:
    """Delete stored responses that contain data of the person or deleted resources; return their number."""
    deleted = 0
    cursor = ("", "")
    while rows := await connection.fetch(queries.RESPONSES, data_subject.tenant_id, *cursor):
        cursor = (rows[-1]["route"], rows[-1]["key"])
        responses = {(row["route"], row["key"]): _objects(row["answer"]) for row in rows}
        every = [one for objects in responses.values() for one in objects]
        missing = await _missing(connection, data_subject.tenant_id, every)
        matching_keys = [
            key
            for key, objects in responses.items()
            if any(_belongs_to(data_subject, one) or not missing.isdisjoint(_ids(one)) for one in objects)
        ]
        if matching_keys:
            routes, keys = zip(*matching_keys, strict=True)
            status = await connection.execute(
                queries.DELETE_RESPONSES, data_subject.tenant_id, list(routes), list(keys)
            )
            deleted += _row_count(status)
    return deleted


def _objects(response: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a response, which is an object or a list."""
    body = msgspec.json.decode(response)
    return [one for one in (body if isinstance(body, list) else [body]) if isinstance(one, dict)]


def _belongs_to(data_subject: DataSubject, resource: dict[str, Any]) -> bool:
    metadata = resource.get("metadata")
    return isinstance(metadata, dict) and all(
        metadata.get(name) == value for name, value in data_subject.metadata.items()
    )


def _ids(resource: dict[str, Any]) -> set[tuple[Column, UUID]]:
    return {(column, UUID(resource[column])) for column in ROOTS if isinstance(resource.get(column), str)}


async def _missing(
    connection: asyncpg.Connection, tenant_id: UUID, resources: list[dict[str, Any]]
) -> set[tuple[Column, UUID]]:
    """Return the ids in ``resources`` that no longer exist."""
    referenced: set[tuple[Column, UUID]] = functools.reduce(set.union, map(_ids, resources), set())
    existing: set[tuple[Column, UUID]] = set()
    for column in ROOTS:
        if ids := [one for of, one in referenced if of == column]:
            existing |= {(column, one) for one in await queries.existing_ids(connection, tenant_id, column, ids)}
    return referenced - existing


_START = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))


def _row_count(status: str) -> int:
    return int(status.rpartition(" ")[2])


class Erasure:
    """One erasure. ``counts``: deleted rows by table."""

    def __init__(self, database: Database, data_subject: DataSubject) -> None:
        self._database = database
        self._data_subject = data_subject
        self._cancels = RunCanceller(database)
        self._signals = Signals(database)
        self._tables: list[TenantTable] = []
        self._quiet_at = 0.0
        self.counts: Counter[str] = Counter()

    async def tables(self) -> list[TenantTable]:
        """Return the tables in deletion order. Raises ``StartError`` if the database user may not delete from some."""
        async with self._database.writing(self._data_subject.tenant_id) as session:
            driver = await session.driver()
            tables = await queries.tables(driver)
            user = str(await driver.fetchval(queries.SESSION_USER))
            for role in {table.eraser for table in tables if table.eraser == queries.ERASER}:
                if not await driver.fetchval(queries.MAY_SET_ROLE, user, role):
                    raise StartError(
                        f"the database user {user} is not the owner: set MIGRATE_DATABASE_URL to its address"
                    )
        if locked := [table.name for table in tables if table.eraser is None]:
            raise StartError(f"no role may delete rows of {', '.join(locked)}: run `agent-service migrate` first")
        return tables

    async def found(self) -> dict[str, int]:
        """Count the rows to delete, by table."""
        found = {}
        async with self._database.writing(self._data_subject.tenant_id) as session:
            driver = await session.driver()
            for table in await queries.tables(driver):
                if count := await driver.fetchval(table.count(self._data_subject), *self._data_subject.parameters()):
                    found[table.name] = int(count)
        return found

    async def run(self, seconds: float) -> None:
        """Delete everything; live runs have ``seconds`` to end. Raises ``StartError`` if rows are left after that."""
        self._tables = await self.tables()
        deadline = time.monotonic() + seconds
        self._quiet_at = time.monotonic() + (SETTLE_SECONDS if self._data_subject.whole else 0)
        self._signals.start()
        try:
            while True:
                await self._round()
                left = await self.found()
                if not left and time.monotonic() >= self._quiet_at:
                    return
                if time.monotonic() > max(deadline, self._quiet_at):
                    remaining = ", ".join(f"{count} of {name}" for name, count in left.items())
                    raise StartError(
                        f"not everything is deleted yet ({remaining}): runs have not ended, or clients are still "
                        "sending; stop them and run this again"
                    )
                delay = ROUND_DELAY if left else max(ROUND_DELAY, self._quiet_at - time.monotonic())
                await asyncio.sleep(delay)
        finally:
            await self._signals.aclose()

    async def _round(self) -> None:
        """Delete everything once, except rows that are in use."""
        await self._delete_keys()
        await self._delete_roots("cron_id")
        await self._cancel_runs()
        await self._delete_threads()
        await self._delete_runs()
        await self._delete_roots("assistant_id")
        await self._delete_roots("item_id")
        await self._delete_roots("document_id")
        if not self._data_subject.whole:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                deleted = await delete_responses(await session.driver(), self._data_subject)
                self.counts["idempotency_keys"] += deleted
        for table in self._tables:
            if table.name not in ROOTS.values():
                await self._delete_rest(table)
        self._signals.notify("erased", [self._data_subject.tenant_id] if self._data_subject.whole else [])

    async def _delete(self, connection: asyncpg.Connection, table: TenantTable, statement: str, *values: Any) -> int:
        await connection.execute(queries.set_role(str(table.eraser)))
        rows = _row_count(await connection.execute(statement, *values))
        await connection.execute(queries.set_role(APP_ROLE))
        self.counts[table.name] += rows
        return rows

    async def _delete_keys(self) -> None:
        """Delete API keys first, so that no new request is accepted."""
        [keys] = [table for table in self._tables if table.name == "api_keys"]
        if await self._delete_rest(keys):
            self._quiet_at = max(self._quiet_at, time.monotonic() + KEY_CACHE_SECONDS)

    async def _delete_rest(self, table: TenantTable) -> int:
        """Delete the rows that belong to no root: of a tenant its orphans, of a person all that match."""
        condition = table.orphaned() if self._data_subject.whole else table.belongs(self._data_subject)
        deleted = 0
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                if table.eraser == APP_ROLE:
                    statement = table.delete(condition, BATCH_ROWS)
                    rows = await self._delete(driver, table, statement, *self._data_subject.parameters())
                else:
                    found = await driver.fetch(table.find(condition, BATCH_ROWS), *self._data_subject.parameters())
                    ctids = [row[0] for row in found]
                    rows = await self._delete(driver, table, table.delete_at(), self._data_subject.tenant_id, ctids)
            deleted += rows
            if rows < BATCH_ROWS:
                return deleted

    async def _delete_tree(self, connection: asyncpg.Connection, column: Column, ids: list[UUID]) -> None:
        """Delete root rows with all rows that refer to them, in the caller's transaction."""
        tenant_id = self._data_subject.tenant_id
        runs = (
            [row[0] for row in await connection.fetch(queries.RUNS_OF, tenant_id, ids)] if column == "thread_id" else []
        )
        for table in self._tables:
            if runs and "run_id" in table.owners:
                await self._delete(connection, table, table.delete_of("run_id"), tenant_id, runs)
            if column in table.owners:
                await self._delete(connection, table, table.delete_of(column), tenant_id, ids)

    async def _delete_roots(self, column: Column) -> None:
        """Delete crons, assistants, store items or documents in batches."""
        [root] = [table for table in self._tables if table.name == ROOTS[column]]
        statement = queries.for_subject(queries.BATCH, root, self._data_subject).replace("<column>", column)
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                rows = await driver.fetch(statement, *self._data_subject.parameters())
                if not rows:
                    return
                await self._delete_tree(driver, column, [row[0] for row in rows])

    async def _delete_threads(self) -> None:
        """Delete threads without a live run, with everything on them."""
        [threads] = [table for table in self._tables if table.name == "threads"]
        statement = queries.for_subject(queries.IDLE_THREADS, threads, self._data_subject)
        cursor = _START
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                rows = await driver.fetch(statement, *self._data_subject.parameters(), *cursor)
                if not rows:
                    return
                batch: list[UUID] = []
                items = 0
                for row in rows:
                    if batch and items + row["last_number"] > BATCH_ITEMS:
                        break
                    batch.append(row["thread_id"])
                    items += row["last_number"]
                    cursor = (row["created_at"], row["thread_id"])
                await self._delete_tree(driver, "thread_id", batch)
            self._signals.notify("news", batch)

    async def _delete_runs(self) -> None:
        """Delete ended runs of a person on threads of others, whose states stay."""
        [runs] = [table for table in self._tables if table.name == "runs"]
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                statement = queries.for_subject(queries.ENDED_RUNS, runs, self._data_subject)
                rows = await driver.fetch(statement, *self._data_subject.parameters())
                if not rows:
                    return
                await self._delete_tree(driver, "run_id", [row[0] for row in rows])

    async def _cancel_runs(self) -> None:
        """Cancel runs that have not ended, as ``POST /runs/cancel`` does, and end those whose lease has expired."""
        [runs] = [table for table in self._tables if table.name == "runs"]
        async with self._database.writing(self._data_subject.tenant_id) as session:
            driver = await session.driver()
            rows = await driver.fetch(
                queries.for_subject(queries.LIVE_RUNS, runs, self._data_subject), *self._data_subject.parameters()
            )
            ids = [row[0] for row in rows]
            if not ids:
                return
            await driver.execute(queries.DROP_WEBHOOKS, self._data_subject.tenant_id, ids)
        await self._cancels.cancel(self._data_subject.tenant_id, ids, "interrupt")
        self._signals.cancel(ids, "interrupt")
        await self._cancels.finish_expired()
