"""Retention: delete expired rows of all tenants, in batches, until nothing is due.

Threads with a TTL of their own are found by an index on that time. All other rows are found by scans along a primary
key, resumed at a position kept in ``retention_marks``, so that writes pay for no extra index; a scan starts over after
``SWEEP_INTERVAL_SECONDS``. Every statement is short, and each sweep runs in one process at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from app.engine.queue.retention.sql import (
    DELETE_AUDIT,
    DELETE_EVENTS,
    DELETE_EXPIRED,
    DELETE_IDLE,
    DELETE_RUNS,
    DELETE_TEMPORARY,
    DELETE_TRANSITIONS,
    DELETE_USAGE,
    LOCK_MARK,
    MOVE_MARK,
    SECONDS_AGO,
    TRIM_IDLE,
    TRIM_RESTED,
    with_batch,
)
from app.engine.streams.sql import DELETE_OLD_FRAMES
from app.infra.db.batches import in_batches, repeat_deletion
from app.infra.db.engine import Database
from app.infra.settings.storage import RetentionSettings
from app.security.idempotency.queries import PRUNE

BATCH = 200
"""Threads examined per statement."""
ROWS = 2000
"""Rows of other tables examined per statement."""

SWEEP_INTERVAL_SECONDS = 6 * 3600.0
"""A scan starts over after this time, as rows that were not due when it passed may be due by then."""
LATE_SECONDS = 900.0
"""Margin by which the scan of event logs stays behind the retention period; longer runs are left to the next scan."""
FULL_SECONDS = 600.0
"""Interval of examining all stateless runs, also those that an idempotency key or a webhook kept before."""
USAGE_DAYS = 400
"""Days for which usage by day is kept: a year, and the month to compare it with."""
FIRST = UUID(int=0)
LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class SweepBatch(NamedTuple):
    """Result of one statement: rows removed, candidates examined, and the position of the last of them."""

    removed: int
    seen: int
    position: Any


class RetentionSweeper:
    """Sweeps the tables of all tenants. Each method deletes everything due and returns the number of rows."""

    def __init__(self, database: Database, retention: RetentionSettings = RetentionSettings()) -> None:
        self._database = database
        self._retention = retention
        self._turn = asyncio.Lock()
        self._full_at = -FULL_SECONDS
        self._usage_at = -SWEEP_INTERVAL_SECONDS

    def kinds(self, keep_seconds: float) -> dict[str, Callable[[], Awaitable[int]]]:
        """Return the sweeps enabled by the settings, by name; stateless runs stay for ``keep_seconds``."""
        retention = self._retention
        wanted: dict[str, tuple[bool, Callable[[], Awaitable[int]]]] = {
            "temporary": (True, lambda: self.temporary(keep_seconds)),
            "expired": (True, self.expired),
            "rested": (True, self.trim_idle_threads),
            "keys": (True, self.keys),
            "frames": (True, self.frames),
            "events": (True, self.events),
            "transitions": (retention.transitions_days > 0, self.transitions),
            "usage": (True, self.usage),
            "audit": (retention.audit_days > 0, self.audit),
            "threads": (retention.threads_days > 0, self.threads),
            "history": (retention.history_days > 0, self.history),
            "runs": (retention.runs_days > 0, self.runs),
        }
        return {name: self._in_turn(sweep) for name, (is_wanted, sweep) in wanted.items() if is_wanted}

    def _in_turn(self, sweep: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        async def swept() -> int:
            async with self._turn:  # one connection per process at a time
                return await sweep()

        return swept

    async def temporary(self, keep_seconds: float) -> int:
        """Delete threads of stateless runs that ended ``keep_seconds`` ago."""
        since, now = LONG_AGO, time.monotonic()
        if now - self._full_at < FULL_SECONDS:
            async with self._database.engine_connection() as connection:
                since = await connection.fetchval(SECONDS_AGO, keep_seconds + FULL_SECONDS)
        else:
            self._full_at = now
        return await self._along_index("temporary", DELETE_TEMPORARY, since, keep_seconds)

    async def expired(self) -> int:
        """Delete threads that were idle for longer than their TTL."""
        return await self._along_index("expired", DELETE_EXPIRED, LONG_AGO)

    async def trim_idle_threads(self) -> int:
        """Trim the history of threads that were idle for long enough to their newest checkpoint."""
        return await self._along_index("rested", TRIM_RESTED, LONG_AGO)

    async def keys(self) -> int:
        """Delete expired idempotency keys."""
        return await repeat_deletion(self._database, "keys", PRUNE, self._retention.idempotency_hours)

    async def frames(self) -> int:
        """Delete frames for other processes that are too old to be of use."""
        return await repeat_deletion(self._database, "frames", DELETE_OLD_FRAMES)

    async def events(self, before: UUID | None = None) -> int:
        """Delete event logs of runs that ended long ago and whose id is less than ``before``."""
        hours = self._retention.events_hours
        until = before or _id_at(time.time() - hours * 3600 - LATE_SECONDS)
        return await self._walk("events", DELETE_EVENTS, ROWS, hours, until)

    async def runs(self, before: UUID | None = None) -> int:
        """Delete runs that ended long ago, except the newest of each thread; threads stay."""
        days = self._retention.runs_days
        return await self._walk("runs", DELETE_RUNS, BATCH, days, before or _id_at(time.time() - days * 86_400))

    async def transitions(self) -> int:
        """Delete the transitions of runs deleted long ago."""
        return await self._walk("transitions", DELETE_TRANSITIONS, ROWS, self._retention.transitions_days)

    async def audit(self) -> int:
        """Delete old entries of the audit log."""
        return await self._walk("audit", DELETE_AUDIT, ROWS, self._retention.audit_days)

    async def usage(self) -> int:
        """Delete usage of days long ago; a no-op if this process has done so recently."""
        now = time.monotonic()
        if now - self._usage_at < SWEEP_INTERVAL_SECONDS:
            return 0
        deleted = await repeat_deletion(self._database, "usage", with_batch(DELETE_USAGE, ROWS), USAGE_DAYS)
        self._usage_at = now
        return deleted

    async def threads(self) -> int:
        """Delete idle threads without a TTL of their own."""
        return await self._walk("threads", DELETE_IDLE, BATCH, self._retention.threads_days)

    async def history(self) -> int:
        """Trim the history of idle threads to their newest checkpoint."""
        return await self._walk("history", TRIM_IDLE, BATCH, self._retention.history_days)

    async def _along_index(self, name: str, statement: str, since: datetime, *parameters: object) -> int:
        statement = with_batch(statement, BATCH)
        position: tuple[object, ...] = (since, FIRST, FIRST)

        async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
            nonlocal position
            swept = await _swept(connection, statement, *position, *parameters)
            position = tuple(swept.position or position)
            return swept.removed, swept.seen == BATCH

        return await in_batches(self._database, name, batch)

    async def _walk(self, name: str, statement: str, size: int, *parameters: object) -> int:
        """Scan from the mark to the end; a no-op while another process does, or if the last scan was recent."""
        statement = with_batch(statement, size)
        width = 3 if name == "transitions" else 2

        async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
            mark = await connection.fetchrow(LOCK_MARK, name, SWEEP_INTERVAL_SECONDS)
            if mark is None:
                return 0, False
            begins = mark["again"] or not mark["place"]
            position = _position("" if mark["again"] else mark["place"], width)
            swept = await _swept(connection, statement, *position, *parameters)
            last = swept.position or ("" if begins else mark["place"])
            await connection.execute(MOVE_MARK, name, last, swept.seen < size, begins)
            return swept.removed, swept.seen == size

        return await in_batches(self._database, name, batch)


async def _swept(connection: asyncpg.Connection, statement: str, *parameters: object) -> SweepBatch:
    row = await connection.fetchrow(statement, *parameters)
    assert row is not None
    return SweepBatch(row["removed"], row["seen"], row["place"])


def _position(text: str, width: int) -> list[object]:
    """Parse the key after which a scan resumes: two ids, or two ids and a number."""
    if not text:
        return [FIRST, FIRST, 0][:width]
    first, second, *number = text.split(" ")
    return [UUID(first), UUID(second), *map(int, number)]


def _id_at(seconds: float) -> UUID:
    """Return the smallest UUIDv7 of a moment."""
    return UUID(int=max(0, int(seconds * 1000)) << 80)
