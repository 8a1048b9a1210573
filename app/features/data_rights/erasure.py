"""Deletes what belongs to a tenant, or to one person in it, in small transactions, while servers run.

A thread goes with everything on it at once, under its lock, as ``DELETE /threads/{id}`` has it. Runs that live are
stopped first. What arrives meanwhile is found by the next round; the last thing is a look at every table.

What requests with an ``Idempotency-Key`` were answered: copies of a person's data that no column leads to.
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
from app.engine.queue.cancels import RunCanceller
from app.engine.streams.signals import Signals
from app.features.data_rights import queries
from app.features.data_rights.queries import ANSWERS, FORGET_ANSWERS, ROOTS, Column, TenantTable, still_there
from app.features.data_rights.structs import DataSubject
from app.infra.db.engine import APP_ROLE, Database


async def forget_answers(connection: asyncpg.Connection, data_subject: DataSubject) -> int:
    """Remove the keys whose answers show something of the person, or something that is gone; how many."""
    removed = 0
    place = ("", "")
    while rows := await connection.fetch(ANSWERS, data_subject.tenant_id, *place):
        place = (rows[-1]["route"], rows[-1]["key"])
        shown = {(row["route"], row["key"]): _things(row["answer"]) for row in rows}
        gone = await _gone(connection, data_subject.tenant_id, [thing for things in shown.values() for thing in things])
        matching_keys = [
            key
            for key, things in shown.items()
            if any(_is_theirs(thing, data_subject) or not gone.isdisjoint(_ids(thing)) for thing in things)
        ]
        if matching_keys:
            routes, keys = zip(*matching_keys, strict=True)
            done = await connection.execute(FORGET_ANSWERS, data_subject.tenant_id, list(routes), list(keys))
            removed += int(done.rpartition(" ")[2])
    return removed


def _things(answer: bytes) -> list[dict[str, Any]]:
    """What an answer shows: an object, or a list of some."""
    found = msgspec.json.decode(answer)
    return [thing for thing in (found if isinstance(found, list) else [found]) if isinstance(thing, dict)]


def _is_theirs(thing: dict[str, Any], data_subject: DataSubject) -> bool:
    metadata = thing.get("metadata")
    return isinstance(metadata, dict) and all(
        metadata.get(name) == value for name, value in data_subject.metadata.items()
    )


def _ids(thing: dict[str, Any]) -> set[tuple[Column, UUID]]:
    return {(column, UUID(thing[column])) for column in ROOTS if isinstance(thing.get(column), str)}


async def _gone(
    connection: asyncpg.Connection, tenant_id: UUID, things: list[dict[str, Any]]
) -> set[tuple[Column, UUID]]:
    named: set[tuple[Column, UUID]] = functools.reduce(set.union, map(_ids, things), set())
    there: set[tuple[Column, UUID]] = set()
    for column in ROOTS:
        if ids := [one for of, one in named if of == column]:
            there |= {(column, one) for one in await still_there(connection, tenant_id, column, ids)}
    return named - there


ROWS = 5_000
"""Rows of a table without owner in one transaction."""

ITEMS = 20_000
"""Log items of the threads in one transaction, but for a thread that has more."""

PAUSE_SECONDS = 0.25

KEY_SECONDS = 6.0
"""How long after its key has gone somebody may still be let in."""

SETTLE_SECONDS = 1.5
"""How long after the last request a server may still write what the tenant has spent and done."""

_FIRST = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))


def _rows(status: str) -> int:
    return int(status.rpartition(" ")[2])


class Erasure:
    """One deletion. ``counts`` grows by what is gone, by table."""

    def __init__(self, database: Database, data_subject: DataSubject) -> None:
        self._database = database
        self._data_subject = data_subject
        self._cancels = RunCanceller(database)
        self._signals = Signals(database)
        self._tables: list[TenantTable] = []
        self._quiet_at = 0.0
        self.counts: Counter[str] = Counter()

    async def tables(self) -> list[TenantTable]:
        """The tables, in the order in which they are emptied. Raises ``StartError`` when some must not be."""
        async with self._database.writing(self._data_subject.tenant_id) as session:
            tables = await queries.tables(await session.driver())
            rights = [table.eraser for table in tables if table.eraser == queries.ERASER]
            user = str(await (await session.driver()).fetchval("select session_user"))
            for role in set(rights):
                if not await (await session.driver()).fetchval("select pg_has_role($1, $2, 'set')", user, role):
                    raise StartError(
                        f"the database user {user} is not the owner: set MIGRATE_DATABASE_URL to its address"
                    )
        if locked := [table.name for table in tables if table.eraser is None]:
            raise StartError(f"no role may remove rows of {', '.join(locked)}: run `agent-service migrate` first")
        return tables

    async def found(self) -> dict[str, int]:
        """How many rows belong to them, by table."""
        found = {}
        async with self._database.writing(self._data_subject.tenant_id) as session:
            driver = await session.driver()
            for table in await queries.tables(driver):
                if count := await driver.fetchval(table.count(self._data_subject), *self._data_subject.parameters()):
                    found[table.name] = int(count)
        return found

    async def run(self, seconds: float) -> None:
        """Delete everything; live runs have ``seconds`` to end. Raises ``StartError`` when something is left then."""
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
                        f"not everything is deleted yet ({remaining}): runs that have not ended, or clients that go on "
                        "sending; stop them and run this again"
                    )
                pause = PAUSE_SECONDS if left else max(PAUSE_SECONDS, self._quiet_at - time.monotonic())
                await asyncio.sleep(pause)
        finally:
            await self._signals.aclose()

    async def _round(self) -> None:
        """Everything once, but for what is in use."""
        await self._keys()
        await self._batches("cron_id")
        await self._stop_runs()
        await self._threads()
        await self._runs()
        await self._batches("assistant_id")
        await self._batches("item_id")
        await self._batches("document_id")
        async with self._database.writing(self._data_subject.tenant_id) as session:
            forgotten = (
                0 if self._data_subject.whole else await forget_answers(await session.driver(), self._data_subject)
            )
            self.counts["idempotency_keys"] += forgotten
        for table in self._tables:
            if table.name not in ROOTS.values():
                await self._rest(table)
        self._signals.notify("erased", [self._data_subject.tenant_id] if self._data_subject.whole else [])

    async def _delete(self, connection: asyncpg.Connection, table: TenantTable, statement: str, *values: Any) -> int:
        await connection.execute(f"set local role {table.eraser}")
        rows = _rows(await connection.execute(statement, *values))
        await connection.execute(f"set local role {APP_ROLE}")
        self.counts[table.name] += rows
        return rows

    async def _keys(self) -> None:
        """First of all, so that nobody comes in any more."""
        [keys] = [table for table in self._tables if table.name == "api_keys"]
        if await self._rest(keys):
            self._quiet_at = max(self._quiet_at, time.monotonic() + KEY_SECONDS)

    async def _rest(self, table: TenantTable) -> int:
        """The rows of a table that no thread, run or whatever takes along; of a tenant, those that have lost theirs."""
        condition = table.lost() if self._data_subject.whole else table.belongs(self._data_subject)
        removed = 0
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                if table.eraser == APP_ROLE:
                    statement = table.delete(condition, ROWS)
                    rows = await self._delete(driver, table, statement, *self._data_subject.parameters())
                else:
                    found = await driver.fetch(table.find(condition, ROWS), *self._data_subject.parameters())
                    places = [row[0] for row in found]
                    rows = await self._delete(driver, table, table.delete_at(), self._data_subject.tenant_id, places)
            removed += rows
            if rows < ROWS:
                return removed

    async def _family(self, connection: asyncpg.Connection, column: Column, ids: list[UUID]) -> None:
        """Remove things with everything that is theirs, in the caller's transaction."""
        tenant_id = self._data_subject.tenant_id
        runs = (
            [row[0] for row in await connection.fetch(queries.RUNS_OF, tenant_id, ids)] if column == "thread_id" else []
        )
        for table in self._tables:
            if runs and "run_id" in table.owners:
                await self._delete(connection, table, table.delete_of("run_id"), tenant_id, runs)
            if column in table.owners:
                await self._delete(connection, table, table.delete_of(column), tenant_id, ids)

    async def _batches(self, column: Column) -> None:
        """Crons, assistants, items of the store, or documents."""
        [root] = [table for table in self._tables if table.name == ROOTS[column]]
        statement = queries.of(queries.BATCH, root, self._data_subject).replace("<column>", column)
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                rows = await driver.fetch(statement, *self._data_subject.parameters())
                if not rows:
                    return
                await self._family(driver, column, [row[0] for row in rows])

    async def _threads(self) -> None:
        """Those that no run lives on, with everything on them."""
        [threads] = [table for table in self._tables if table.name == "threads"]
        statement = queries.of(queries.FREE_THREADS, threads, self._data_subject)
        place = _FIRST
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                rows = await driver.fetch(statement, *self._data_subject.parameters(), place[0], place[1])
                if not rows:
                    return
                batch: list[UUID] = []
                items = 0
                for row in rows:
                    if batch and items + row["last_number"] > ITEMS:
                        break
                    batch.append(row["thread_id"])
                    items += row["last_number"]
                    place = (row["created_at"], row["thread_id"])
                await self._family(driver, "thread_id", batch)
            self._signals.notify("news", batch)

    async def _runs(self) -> None:
        """Ended runs of a person on threads of others, whose states stay."""
        [runs] = [table for table in self._tables if table.name == "runs"]
        while True:
            async with self._database.writing(self._data_subject.tenant_id) as session:
                driver = await session.driver()
                statement = queries.of(queries.ENDED_RUNS, runs, self._data_subject)
                rows = await driver.fetch(statement, *self._data_subject.parameters())
                if not rows:
                    return
                await self._family(driver, "run_id", [row[0] for row in rows])

    async def _stop_runs(self) -> None:
        """Cancel what has not ended, as ``POST /runs/cancel`` does; what dead processes left ends with its lease."""
        [runs] = [table for table in self._tables if table.name == "runs"]
        async with self._database.writing(self._data_subject.tenant_id) as session:
            driver = await session.driver()
            rows = await driver.fetch(
                queries.of(queries.LIVE, runs, self._data_subject), *self._data_subject.parameters()
            )
            ids = [row[0] for row in rows]
            if not ids:
                return
            await driver.execute(queries.HUSH, self._data_subject.tenant_id, ids)
        await self._cancels.cancel(self._data_subject.tenant_id, ids, "interrupt")
        self._signals.cancel(ids, "interrupt")
        await self._cancels.finish_expired()
