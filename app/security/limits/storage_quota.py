"""Storage quota per tenant: measured in the background, enforced from memory.

Each process reads every few seconds which tenants are over quota; requests check only that. So a tenant may exceed its
limit by what it stores between two measurements (docs/how-to/limits.md).
"""

import asyncio
import time
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from app.base.byte_sizes import show_size
from app.base.errors import Limited
from app.base.tasks import Tasks
from app.infra.db.engine import Database
from app.security.limits import queries
from app.security.limits.limiter import STORAGE, Limiter
from app.security.limits.structs import TenantLimits

REFRESH_SECONDS = 5.0
IDLE_SECONDS = 5.0
FIND_SECONDS = 60.0
"""Interval for finding tenants with a new or changed limit."""
MEASURE_SECONDS = 60.0
"""Minimum interval between measurements of one tenant."""
WORK_PART = 0.1
"""Maximum fraction of the time spent on measuring one tenant."""
SLICE_SECONDS = 0.5
"""Seconds of measuring before the next tenant's turn, and of the pause after it."""


class OverQuota(NamedTuple):
    """A tenant that stores ``bytes`` and may store ``limit``."""

    bytes: int
    limit: int


class MeasurementProgress(msgspec.Struct):
    """Progress of a measurement: the table, the key of the last row, bytes by kind, seconds so far."""

    table: str = next(iter(queries.MEASURED))
    after: str | None = None
    bytes: dict[str, int] = {}
    seconds: float = 0.0
    is_done: bool = False


class StorageSweep:
    """Measures the storage of tenants with a limit, in slices, in one process at a time."""

    def __init__(self, database: Database, limiter: Limiter) -> None:
        self._database = database
        self._limiter = limiter
        self._find_at = time.monotonic()
        self._tasks = Tasks("storage_sweep")

    def start(self) -> None:
        """Start measuring."""
        self._tasks.repeat(self._turn, SLICE_SECONDS, name="measure")

    async def aclose(self) -> None:
        """Stop measuring."""
        await self._tasks.aclose()

    async def _turn(self) -> None:
        """Measure for one slice, or wait if nothing is due."""
        if time.monotonic() >= self._find_at and await self.find():
            self._find_at = time.monotonic() + FIND_SECONDS
        until = time.monotonic() + SLICE_SECONDS
        while time.monotonic() < until:
            if not await self.measure_slice():
                await asyncio.sleep(IDLE_SECONDS)
                return

    async def find(self) -> bool:
        """Find tenants with a limit and apply changed limits; False if another process holds the lock."""
        default = self._default
        async with self._database.engine_connection() as connection, connection.transaction():
            if not await connection.fetchval(queries.LOCK):
                return False
            await connection.execute(queries.DROP_UNLIMITED, default)
            await connection.execute(queries.ADD_OWN)
            if default:
                await connection.execute(queries.ADD_ALL, default)
            await connection.execute(queries.COMPARE, default)
        return True

    async def measure_slice(self) -> bool:
        """Measure a slice of the tenant that has waited longest; False if none is due or another process measures."""
        async with self._database.engine_connection() as connection:
            async with connection.transaction():
                is_free = await connection.fetchval(queries.LOCK)
                row = await connection.fetchrow(queries.CLAIM, MEASURE_SECONDS) if is_free else None
            if row is None:
                return False
            async with connection.transaction():
                if await connection.fetchval(queries.LOCK):
                    await self._measure(connection, row)
        return True

    async def _measure(self, connection: asyncpg.Connection, row: asyncpg.Record) -> None:
        """Resume the measurement of the tenant of ``row`` and store its progress."""
        tenant_id, given = row["tenant_id"], row["walk"]
        progress = msgspec.json.decode(given, type=MeasurementProgress) if given else MeasurementProgress()
        if progress.table not in queries.MEASURED:  # stored by another version
            progress = MeasurementProgress()
        await connection.execute(queries.ALONG_KEYS)
        await self._measure_pages(connection, tenant_id, progress)
        if not progress.is_done:
            await connection.execute(queries.CONTINUE, tenant_id, msgspec.json.encode(progress).decode())
            return
        pause = max(MEASURE_SECONDS, progress.seconds / WORK_PART)
        by_kind = msgspec.json.encode(progress.bytes).decode()
        total = sum(progress.bytes.values())
        await connection.execute(queries.FINISH, tenant_id, total, by_kind, pause, self._default)

    async def _measure_pages(
        self, connection: asyncpg.Connection, tenant_id: UUID, progress: MeasurementProgress
    ) -> None:
        """Measure page after page, at least one, until the slice or the measurement ends."""
        started_at, tables = time.monotonic(), list(queries.MEASURED)
        is_done = False
        while not is_done:
            table = queries.MEASURED[progress.table]
            given = [] if progress.after is None else [progress.after]
            page = await connection.fetchrow(queries.page_of(table, first=not given), tenant_id, *given)
            assert page is not None
            progress.bytes[table.kind] = progress.bytes.get(table.kind, 0) + page["bytes"]
            progress.after = page["last"]
            if progress.after is None:
                following = tables.index(progress.table) + 1
                progress.is_done = following == len(tables)
                progress.table = tables[min(following, len(tables) - 1)]
            is_done = progress.is_done or time.monotonic() - started_at >= SLICE_SECONDS
        progress.seconds += time.monotonic() - started_at

    @property
    def _default(self) -> int:
        limit: int = self._limiter.limit(TenantLimits(), "bytes")
        return limit


class StorageQuota:
    """Rejects writes of tenants that are over quota, as ``sweep`` has measured."""

    def __init__(self, database: Database, limiter: Limiter) -> None:
        self._database = database
        self._limiter = limiter
        self._full: dict[UUID, OverQuota] = {}
        self.highest_usage = 0.0
        """The highest used fraction of a limit, over all tenants."""
        self.sweep = StorageSweep(database, limiter)
        self._tasks = Tasks("storage_quota")

    def start(self) -> None:
        """Start the periodic refresh of the tenants over quota."""
        self._tasks.repeat(self.refresh, REFRESH_SECONDS, name="refresh")

    async def aclose(self) -> None:
        """Stop refreshing."""
        await self._tasks.aclose()

    async def refresh(self) -> None:
        """Read the tenants over quota."""
        default = self._limiter.limit(TenantLimits(), "bytes")
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(queries.FULL, default)
            self.highest_usage = await connection.fetchval(queries.FULLEST)
        self._full = {
            row["tenant_id"]: OverQuota(row["bytes"], row["max_bytes"])
            for row in rows
            if 0 < row["max_bytes"] <= row["bytes"]
        }

    def check(self, tenant_id: UUID) -> None:
        """Raise ``Limited`` if the tenant is over quota."""
        full = self._full.get(tenant_id)
        if full is None:
            return
        self._limiter.rejected(STORAGE)
        raise Limited(
            f"This tenant stores {show_size(full.bytes)}, its limit is {show_size(full.limit)}: delete threads, "
            "documents or store items, give threads a TTL, or ask the operator for more. Deletions "
            "count within minutes.",
            MEASURE_SECONDS,
        )
