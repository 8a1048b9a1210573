"""Background work in batches: one short transaction per batch, one process at a time."""

from collections.abc import Awaitable, Callable

import asyncpg

from app.infra.db import sql
from app.infra.db.engine import Database


async def in_batches(
    database: Database, name: str, batch: Callable[[asyncpg.Connection], Awaitable[tuple[int, bool]]]
) -> int:
    """Call ``batch`` until nothing is left, unless another process works on ``name``; return the sum of its counts.

    ``batch`` gets a connection in a transaction and returns the number of deleted rows and whether more may be left.
    """
    deleted, has_more = 0, True
    async with database.engine_connection() as connection:
        while has_more:
            async with connection.transaction():
                if not await connection.fetchval(sql.LOCK_BATCHES, name):
                    return deleted
                count, has_more = await batch(connection)
            deleted += count
    return deleted


async def repeat_deletion(database: Database, name: str, statement: str, *parameters: object) -> int:
    """Repeat a ``statement`` that deletes a bounded number of rows until none is left; return how many it deleted."""

    async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
        count = int((await connection.execute(statement, *parameters)).rpartition(" ")[2])
        return count, count > 0

    return await in_batches(database, name, batch)
