"""Everything that leans on private parts of SQLAlchemy 2.1 (pyproject.toml allows 2.1 alone).

- ``Pool._do_get`` and ``Pool._do_return_conn`` are overridden to measure how long a connection was waited for and used:
  the pool's events come after the wait, and none comes when it times out. Remove it once events do.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.infra.telemetry.meters import ServerMeters

TAKEN = "taken"


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
