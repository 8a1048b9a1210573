"""A pool of connections that tells how it is used.

The open connections of a database, which can be cut all at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.base.fair_semaphore import FairSemaphore, Waiter
from app.infra.telemetry.meters import ServerMeters

TAKEN = "taken"

SPARE_PART = 5
"""Of a pool a fifth is kept for tenants that hold no connection yet."""


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool for asyncio; it counts from ``measure`` on."""

    _meters: ServerMeters | None = None
    _name = ""
    _waiting = 0
    _came = 0.0

    @contextlib.contextmanager
    def waited(self) -> Iterator[None]:
        """A block in which somebody waits for his turn; he takes a connection next, before anything else runs."""
        came = time.perf_counter()
        self._waiting += 1
        try:
            yield
            self._came = came
        except TimeoutError:
            if self._meters is not None:
                self._meters.pool_timeouts.add(1, self._name)
            raise
        finally:
            self._waiting -= 1

    def measure(self, meters: ServerMeters, name: str) -> None:
        """Count on ``meters`` as the pool ``name``."""
        self._meters, self._name = meters, name
        meters.pool_timeouts.add(0, name)  # a series that begins with its first event never grows by it

    def sample(self) -> None:
        """Set the gauges to what is true now."""
        if self._meters is not None:
            self._meters.pool_connections.set(self.checkedout(), self._name, "used")
            self._meters.pool_connections.set(self.checkedin(), self._name, "idle")
            self._meters.pool_most.set(self.size(), self._name)
            self._meters.pool_waiting.set(self._waiting, self._name)

    def _do_get(self) -> Any:
        if self._meters is None:
            return super()._do_get()
        began, self._came = self._came or time.perf_counter(), 0.0
        self._waiting += 1
        try:
            record = super()._do_get()
        except PoolTimeoutError:
            self._meters.pool_timeouts.add(1, self._name)
            raise
        finally:
            self._waiting -= 1
        now = time.perf_counter()
        self._meters.pool_wait.record(now - began, self._name)
        record.info[TAKEN] = now
        return record

    def _do_return_conn(self, record: Any) -> None:
        if self._meters is not None and (taken := record.info.pop(TAKEN, None)) is not None:
            self._meters.pool_use.record(time.perf_counter() - taken, self._name)
        super()._do_return_conn(record)


class PoolGate(FairSemaphore):
    """Shares the connections of ``pool`` fairly between tenants: in the block of a slot, a connection is free.

    SQLAlchemy waits as well, but in a greenlet for each who waits: ten and more kilobytes, a fraction of one here.
    A wait raises ``TimeoutError`` after as long as the pool would wait.
    """

    def __init__(self, pool: MeasuredPool) -> None:
        super().__init__(pool.size(), spare=pool.size() // SPARE_PART)
        self._pool = pool

    async def _until(self, waiter: Waiter) -> None:
        with self._pool.waited():
            async with asyncio.timeout(self._pool.timeout()):
                await waiter


class ConnectionTracker:
    """The open connections of a database, which can be cut."""

    def __init__(self) -> None:
        self._open: WeakSet[asyncpg.Connection] = WeakSet()
        self._doubted: WeakSet[asyncpg.Connection] = WeakSet()
        self.cut = False

    def opened(self, connection: Any, _record: Any) -> None:
        """Remember a connection (an event of the pool)."""
        self._open.add(connection.driver_connection)

    def suspect_connections(self) -> None:
        """Mark every connection that is open now as one that may lead nowhere."""
        self._doubted |= self._open

    def closing(self, connection: Any, _record: Any) -> None:
        """Wait for no farewell of a server that may be gone (an event of the pool)."""
        if self.is_suspect(connection.driver_connection):
            connection.driver_connection.terminate()

    def is_suspect(self, connection: asyncpg.Connection) -> bool:
        """Whether ``connection`` was open when there was doubt."""
        return connection in self._doubted

    def abort(self) -> None:
        """Cut them all, whatever they do; who wants another gets none."""
        self.cut = True
        for connection in list(self._open):
            connection.terminate()
