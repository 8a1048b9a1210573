"""The open connections of a database, which can be cut all at once."""

from typing import Any
from weakref import WeakSet

import asyncpg


class Wire:
    """The open connections of a database, which can be cut."""

    def __init__(self) -> None:
        self._open: WeakSet[asyncpg.Connection] = WeakSet()
        self._doubted: WeakSet[asyncpg.Connection] = WeakSet()
        self.cut = False

    def opened(self, connection: Any, _record: Any) -> None:
        """Remember a connection (an event of the pool)."""
        self._open.add(connection.driver_connection)

    def doubt(self) -> None:
        """Mark every connection that is open now as one that may lead nowhere."""
        self._doubted |= self._open

    def closing(self, connection: Any, _record: Any) -> None:
        """Wait for no farewell of a server that may be gone (an event of the pool)."""
        if self.is_doubted(connection.driver_connection):
            connection.driver_connection.terminate()

    def is_doubted(self, connection: asyncpg.Connection) -> bool:
        """Whether ``connection`` was open when there was doubt."""
        return connection in self._doubted

    def abort(self) -> None:
        """Cut them all, whatever they do; who wants another gets none."""
        self.cut = True
        for connection in list(self._open):
            connection.terminate()
