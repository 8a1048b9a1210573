"""Indexes of neighbours taken away for a bulk load and built anew after it, which takes a fraction of the time.

Searches go on meanwhile, only slower: every vector of a tenant is compared. Both steps let others read and write.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from app.base.errors import StartError

_FOUND = """
select c.relname as name, pg_get_indexdef(i.indexrelid) as definition
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
join pg_class t on t.oid = i.indrelid
where a.amname = 'hnsw' and t.relname = any($1) and t.relnamespace = 'public'::regnamespace order by 1
"""
_MEMORY = "set maintenance_work_mem = '512MB'"


@contextlib.asynccontextmanager
async def without_neighbours(url: str, tables: list[str], told: Callable[[str], None]) -> AsyncIterator[None]:
    """Drop the indexes of ``tables`` for the time of the block, as their owner; ``told`` hears what is done.

    Raises ``StartError`` with the statement that builds an index which could not be built.
    """
    indexes = await _as_owner(url, lambda connection: connection.fetch(_FOUND, tables))
    for index in indexes:
        told(f"taking away the index {index['name']}")
        await _as_owner(url, _statement("drop index concurrently " + index["name"]))
    try:
        yield
    finally:
        for index in indexes:
            told(f"building the index {index['name']}")
            await _build(url, index["name"], index["definition"])


async def _build(url: str, name: str, definition: str) -> None:
    statement = definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)

    async def build(connection: asyncpg.Connection) -> None:
        await connection.execute(_MEMORY)
        await connection.execute(statement)

    try:
        await _as_owner(url, build)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(
            f"the index {name} is not built ({type(error).__name__}), searches are slow without it; build it with: "
            f'drop index if exists "{name}"; {definition}'
        ) from error


async def _as_owner(url: str, use: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await use(connection)
    finally:
        await connection.close()


def _statement(text: str) -> Callable[[asyncpg.Connection], Awaitable[Any]]:
    return lambda connection: connection.execute(text)
