"""A pool of connections that tells how it is used."""

import time
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.telemetry.meters import ServerMeters

TAKEN = "taken"


class MeasuredPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool for asyncio; it counts from ``measure`` on."""

    _meters: ServerMeters | None = None
    _name = ""
    _waiting = 0

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
        began = time.perf_counter()
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
