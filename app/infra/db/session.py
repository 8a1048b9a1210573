"""Sessions of requests: one tenant, one transaction; reading and writing have different types."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy import CursorResult, Row
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from app.infra.db import sql


class ScopedStatement:
    """An SQL statement with the placeholder ``<owned>`` for a condition on metadata, for principals with a metadata
    filter.

    ``condition`` uses ``:owned``, the JSON that the metadata must contain. Without a filter the statement runs without
    it.
    """

    def __init__(self, text: str, condition: str) -> None:
        self.whole = sa.text(text.replace("<owned>", ""))
        self.part = sa.text(text.replace("<owned>", f" and {condition}"))


Statement = Executable | ScopedStatement


class Reader:
    """A transaction that reads as one tenant, from ``Database.reading``.

    ``owned``: JSON that the metadata of the rows must contain; None: everything of the tenant is accessible.
    """

    def __init__(self, connection: AsyncConnection, owned: str | None = None) -> None:
        self._connection = connection
        self.owned = owned

    async def all(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Return every row of ``statement``."""
        return (await self._run(statement, parameters)).all()

    async def first(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """Return the first row of ``statement``, or None."""
        return (await self._run(statement, parameters)).first()

    async def scalar(self, statement: Statement, parameters: dict[str, Any] | None = None) -> Any:
        """Return the first column of the first row of ``statement``, or None."""
        return (await self._run(statement, parameters)).scalar()

    def within(self, metadata: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
        """Return the condition on ``metadata`` for ``owned``; none if everything is accessible."""
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
    """A transaction that may also write, from ``Database.writing``; it commits when its block ends without an error."""

    async def driver(self) -> asyncpg.Connection:
        """Return the driver's connection inside this transaction, for the engine's statements over arrays."""
        raw = await self._connection.get_raw_connection()
        assert raw.driver_connection is not None
        return raw.driver_connection

    async def allow_pauses(self) -> None:
        """Let this transaction wait for minutes between its statements; it may hold no lock for which others wait."""
        await self._connection.execute(sql.SET_LONG_IDLE)

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """Run ``statement`` and return the number of affected rows."""
        return (await self._connection.execute(statement, parameters)).rowcount


class Snapshot(Reader):
    """A long transaction that reads a consistent snapshot, from ``Database.snapshot``."""

    async def driver(self) -> asyncpg.Connection:
        """Return the driver's connection inside this transaction."""
        raw = await self._connection.get_raw_connection()
        assert raw.driver_connection is not None
        return raw.driver_connection

    async def pages(self, statement: str, size: int, *values: Any) -> AsyncIterator[list[asyncpg.Record]]:
        """Yield the rows of ``statement`` in pages of ``size``; one page is in memory at a time."""
        cursor = await (await self.driver()).cursor(statement, *values)
        while rows := await cursor.fetch(size):
            yield rows
