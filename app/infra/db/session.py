"""Sessions of requests: one tenant, one transaction, and reading and writing told apart by type."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy import CursorResult, Row
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable


class ScopedStatement:
    """A statement in SQL with ``<owned>`` where a condition on metadata belongs, for those who see only their own.

    ``condition`` uses ``:owned``, the JSON that the metadata must contain. Whoever sees everything of a tenant runs the
    statement without it.
    """

    def __init__(self, text: str, condition: str) -> None:
        self.whole = sa.text(text.replace("<owned>", ""))
        self.part = sa.text(text.replace("<owned>", f" and {condition}"))


Statement = Executable | ScopedStatement


class Reader:
    """A transaction that reads as one tenant. Handed out by ``Database.reading``.

    ``owned``: JSON that the metadata of whatever is named must contain (None: everything of the tenant is in reach).
    """

    def __init__(self, connection: AsyncConnection, owned: str | None = None) -> None:
        self._connection = connection
        self.owned = owned

    async def all(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Every row of ``statement``."""
        return (await self._run(statement, parameters)).all()

    async def first(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """The first row of ``statement``, or None."""
        return (await self._run(statement, parameters)).first()

    async def scalar(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Any:
        """The first column of the first row of ``statement``, or None."""
        return (await self._run(statement, parameters)).scalar()

    def within(self, metadata: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
        """The condition on ``metadata`` that is ``owned``; none where everything is in reach."""
        if self.owned is None:
            return []
        return [metadata.op("@>", is_comparison=True)(sa.cast(sa.literal(self.owned, sa.Text), JSONB))]

    async def _run(self, statement: Statement, parameters: dict[str, Any] | None) -> CursorResult[Any]:
        if isinstance(statement, ScopedStatement):
            if self.owned is None:
                statement = statement.whole
            else:
                statement, parameters = statement.part, {**(parameters or {}), "owned": self.owned}
        return await self._connection.execute(statement, parameters)


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
