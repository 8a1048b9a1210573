"""Sessions of requests: one tenant, one transaction, and reading and writing told apart by type."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable


class Reader:
    """A transaction that reads as one tenant. Handed out by ``Database.reading``."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Every row of ``statement``."""
        return (await self._connection.execute(statement, parameters)).all()

    async def first(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """The first row of ``statement``, or None."""
        return (await self._connection.execute(statement, parameters)).first()

    async def scalar(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Any:
        """The first column of the first row of ``statement``, or None."""
        return (await self._connection.execute(statement, parameters)).scalar()


class Writer(Reader):
    """A transaction that may also write; it commits when its block ends well. Handed out by ``Database.writing``."""

    async def driver(self) -> asyncpg.Connection:
        """The driver's connection, inside this transaction: for the engine's statements over arrays."""
        raw = await self._connection.get_raw_connection()
        assert raw.driver_connection is not None
        return raw.driver_connection

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """Run ``statement``; the number of rows it touched."""
        return (await self._connection.execute(statement, parameters)).rowcount


class Snapshot(Reader):
    """A transaction that reads one moment, however long it takes. Handed out by ``Database.snapshot``."""

    async def driver(self) -> asyncpg.Connection:
        """The driver's connection, inside this transaction."""
        raw = await self._connection.get_raw_connection()
        assert raw.driver_connection is not None
        return raw.driver_connection

    async def pages(self, statement: str, size: int, *values: Any) -> AsyncIterator[list[asyncpg.Record]]:
        """What ``statement`` gives, ``size`` rows at a time: only these are in memory."""
        cursor = await (await self.driver()).cursor(statement, *values)
        while rows := await cursor.fetch(size):
            yield rows
