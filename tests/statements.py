"""What the program sends to its database: by the driver's own methods, so no way to the server is missed."""

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from app.infra.db.engine import Database

TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")

_listeners: list["Statements"] = []


class Statements:
    """Statements of the program's roles in one database, in the order in which they were sent.

    Begin, commit and rollback are left out; ``transactions`` counts the begins.
    """

    def __init__(self, database: str) -> None:
        self.transactions = 0
        self._database = database
        self._sent: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[str]:
        return (statement for statement, _ in self._sent)

    def of(self, role: str) -> list[str]:
        """Return the statements sent by ``role``."""
        return [statement for statement, sender in self._sent if sender == role]

    def clear(self) -> None:
        """Clear the record."""
        self._sent.clear()
        self.transactions = 0

    def record(self, statement: str, role: str, database: str) -> None:
        """Record a statement."""
        if database != self._database or not role:
            return
        if statement.lstrip().upper().startswith(TRANSACTION):
            self.transactions += statement.lstrip().upper().startswith("BEGIN")
        else:
            self._sent.append((statement, role))


def watch() -> None:
    """Record the statements of all connections, direct or prepared (as SQLAlchemy always does)."""
    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
        plain = getattr(asyncpg.Connection, name)

        @functools.wraps(plain)
        def sends(connection: Any, query: str, *args: Any, _plain: Any = plain, **more: Any) -> Any:
            _record(query, connection)
            return _plain(connection, query, *args, **more)

        setattr(asyncpg.Connection, name, sends)
    for name in ("executemany", "fetch", "fetchrow", "fetchval", "cursor"):
        plain = getattr(PreparedStatement, name)

        @functools.wraps(plain)
        def runs(prepared: Any, *args: Any, _plain: Any = plain, **more: Any) -> Any:
            _record(prepared.get_query(), prepared._connection)
            return _plain(prepared, *args, **more)

        setattr(PreparedStatement, name, runs)


def _record(query: str, connection: Any) -> None:
    if _listeners:
        parameters = connection._params
        role = (parameters.server_settings or {}).get("role", "")
        for listener in _listeners:
            listener.record(query, role, parameters.database)


@contextlib.asynccontextmanager
async def sent_by(database: Database) -> AsyncIterator[Statements]:
    """Record the statements that ``database`` sends over both pools during the block."""
    statements = Statements(database._requests.sync_engine.url.database or "")
    _listeners.append(statements)
    try:
        yield statements
    finally:
        _listeners.remove(statements)
