"""Background work in batches: each in a short transaction of its own, by one process at a time."""

from collections.abc import Awaitable, Callable

import asyncpg

from app.infra.db.engine import Database

_TURN = "select pg_try_advisory_xact_lock(hashtextextended('batches ' || $1, 0))"
"""Ends with the transaction, so that it holds behind a pooler too, and no process can leave it behind."""


async def in_batches(
    database: Database, name: str, batch: Callable[[asyncpg.Connection], Awaitable[tuple[int, bool]]]
) -> int:
    """Call ``batch`` until nothing is left, or while no other process works on ``name``; the sum of its counts.

    It gets a connection in a transaction and returns how many rows it removed, and whether more may be left.
    """
    removed, goes_on = 0, True
    async with database.engine_connection() as connection:
        while goes_on:
            async with connection.transaction():
                if not await connection.fetchval(_TURN, name):
                    return removed
                count, goes_on = await batch(connection)
            removed += count
    return removed


async def repeat_deletion(database: Database, name: str, statement: str) -> int:
    """Repeat a ``statement`` that removes a bounded number of rows until it finds none; how many it removed."""

    async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
        count = int((await connection.execute(statement)).rpartition(" ")[2])
        return count, count > 0

    return await in_batches(database, name, batch)
