"""What this process sends to databases: the driver itself tells, so no way to the server is missed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")

_listeners: list["Statements"] = []


class Statements:
    """Statements in the order in which they ended; ``ends`` counts the transactions that were begun explicitly."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.roles: list[str] = []
        self.transactions = 0

    def __len__(self) -> int:
        return len(self.sent)

    def of(self, role: str) -> list[str]:
        """What was sent over connections of ``role``."""
        return [statement for statement, sender in zip(self.sent, self.roles, strict=True) if sender == role]

    def add(self, statement: str, role: str) -> None:
        """Take note of a statement."""
        if statement.lstrip().upper().startswith(TRANSACTION):
            self.transactions += statement.lstrip().upper().startswith("BEGIN")
        else:
            self.sent.append(statement)
            self.roles.append(role)


def watch() -> None:
    """Let every connection from now on tell what it sends."""
    connect = asyncpg.connect

    async def watched(*arguments: Any, **more: Any) -> Any:
        connection = await connect(*arguments, **more)
        connection.add_query_logger(_tell)
        return connection

    asyncpg.connect = watched


def _tell(query: Any) -> None:
    role = (query.conn_params.server_settings or {}).get("role", "")
    for listener in _listeners:
        listener.add(query.query, role)


@contextlib.asynccontextmanager
async def counted() -> AsyncIterator[Statements]:
    """The statements that the block sends, once it has ended; make connections and prepare statements before it."""
    statements = Statements()
    _listeners.append(statements)
    try:
        yield statements
        await asyncio.sleep(0)  # the driver tells in the loop's next turn
    finally:
        _listeners.remove(statements)
