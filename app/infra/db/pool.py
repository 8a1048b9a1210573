"""Connection pools: metrics, fair admission, and tracking of open connections."""

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
"""One fifth of a pool is reserved for tenants that hold no connection yet."""


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with metrics, recorded once ``measure`` is called."""

    _meters: ServerMeters | None = None
    _name = ""
    _waiting = 0
    _wait_started_at = 0.0

    @contextlib.contextmanager
    def waited(self) -> Iterator[None]:
        """Count a waiter in the block, which takes a connection right after it."""
        started_at = time.perf_counter()
        self._waiting += 1
        try:
            yield
            self._wait_started_at = started_at
        except TimeoutError:
            if self._meters is not None:
                self._meters.pool_timeouts.add(1, self._name)
            raise
        finally:
            self._waiting -= 1

    def measure(self, meters: ServerMeters, name: str) -> None:
        """Record metrics on ``meters`` under the pool's ``name``."""
        self._meters, self._name = meters, name
        meters.pool_timeouts.add(0, name)  # a series must exist before its first event, or `rate` misses that event

    def sample(self) -> None:
        """Set the gauges."""
        if self._meters is not None:
            self._meters.pool_connections.set(self.checkedout(), self._name, "used")
            self._meters.pool_connections.set(self.checkedin(), self._name, "idle")
            self._meters.pool_most.set(self.size(), self._name)
            self._meters.pool_waiting.set(self._waiting, self._name)

    def _do_get(self) -> Any:
        if self._meters is None:
            return super()._do_get()
        started_at, self._wait_started_at = self._wait_started_at or time.perf_counter(), 0.0
        self._waiting += 1
        try:
            record = super()._do_get()
        except PoolTimeoutError:
            self._meters.pool_timeouts.add(1, self._name)
            raise
        finally:
            self._waiting -= 1
        now = time.perf_counter()
        self._meters.pool_wait.record(now - started_at, self._name)
        record.info[TAKEN] = now
        return record

    def _do_return_conn(self, record: Any) -> None:
        if self._meters is not None and (taken := record.info.pop(TAKEN, None)) is not None:
            self._meters.pool_use.record(time.perf_counter() - taken, self._name)
        super()._do_return_conn(record)


class PoolGate(FairSemaphore):
    """Fair semaphore over the connections of ``pool``: in the block of a slot, a connection is free.

    SQLAlchemy's own queue needs a greenlet per waiter, more than ten kilobytes; this needs a fraction of one. Raises
    ``TimeoutError`` after the pool's timeout.
    """

    def __init__(self, pool: MeasuredPool) -> None:
        super().__init__(pool.size(), spare=pool.size() // SPARE_PART)
        self._pool = pool

    async def _until(self, waiter: Waiter) -> None:
        with self._pool.waited():
            async with asyncio.timeout(self._pool.timeout()):
                await waiter


class ConnectionTracker:
    """Tracks the open connections of a database, so that they can be closed or replaced."""

    def __init__(self) -> None:
        self._open: WeakSet[asyncpg.Connection] = WeakSet()
        self._suspect: WeakSet[asyncpg.Connection] = WeakSet()
        self.cut = False

    def opened(self, connection: Any, _record: Any) -> None:
        """Track a connection (a pool event)."""
        self._open.add(connection.driver_connection)

    def suspect_connections(self) -> None:
        """Mark all open connections as possibly dead."""
        self._suspect |= self._open

    def closing(self, connection: Any, _record: Any) -> None:
        """Terminate a suspect connection instead of waiting for its server (a pool event)."""
        if self.is_suspect(connection.driver_connection):
            connection.driver_connection.terminate()

    def is_suspect(self, connection: asyncpg.Connection) -> bool:
        """Whether ``connection`` was open when connections were marked as suspect."""
        return connection in self._suspect

    def abort(self) -> None:
        """Terminate all connections, whatever they do, and refuse new ones."""
        self.cut = True
        for connection in list(self._open):
            connection.terminate()
