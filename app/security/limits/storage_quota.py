"""The limit on the bytes that a tenant stores: measured in the background, enforced from memory.

Each process reads every few seconds which tenants are full; a request asks that and nothing else. So a tenant may
exceed its limit by what it stores between two measurements (docs/how-to/limits.md).
"""

import asyncio
import time
from collections.abc import Callable
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
LOOK_SECONDS = 5.0
FIND_SECONDS = 60.0
"""How often tenants are looked for that have got a limit, or another one."""
MEASURE_SECONDS = 60.0
"""How often a tenant is measured, at most."""
WORK_PART = 0.1
"""The greatest part of the time in which one tenant is being measured."""
SLICE_SECONDS = 0.5
"""How long a measurement goes on before the next tenant has its turn, and the pause of the database after it."""


class OverQuota(NamedTuple):
    """A tenant that stores ``bytes`` and may store ``most``."""

    bytes: int
    most: int


class MeasurementProgress(msgspec.Struct):
    """How far a measurement has come: the table, the key of the last row, what was found, the seconds it took."""

    table: str = next(iter(queries.MEASURED))
    after: str | None = None
    bytes: dict[str, int] = {}
    seconds: float = 0.0
    is_done: bool = False


class StorageSweep:
    """Measures what tenants that have a limit store: in one process at a time, a slice of a tenant's rows at a time."""

    def __init__(self, database: Database, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._limiter = limiter
        self._clock = clock
        self._find_at = clock()
        self._tasks = Tasks("storage_sweep")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Begin to measure."""
        self._tasks.repeat(self._turn, SLICE_SECONDS, name="measure")

    async def _turn(self) -> None:
        """Measure for as long as a slice, or wait if nothing is due."""
        if self._clock() >= self._find_at and await self.find():
            self._find_at = self._clock() + FIND_SECONDS
        until = self._clock() + SLICE_SECONDS
        while self._clock() < until:
            if not await self.measure_slice():
                await asyncio.sleep(LOOK_SECONDS)
                return

    async def find(self) -> bool:
        """Find the tenants that have a limit, and compare with limits that were changed; False if another one works."""
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
        """Measure a part of the tenant that has waited longest; False if none is due or another process measures."""
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
        """Go on with the measurement of the tenant of ``row``, and keep how far it has come."""
        tenant_id, given = row["tenant_id"], row["walk"]
        walk = msgspec.json.decode(given, type=MeasurementProgress) if given else MeasurementProgress()
        if walk.table not in queries.MEASURED:  # of another version
            walk = MeasurementProgress()
        await connection.execute(queries.ALONG_KEYS)
        await self._go_on(connection, tenant_id, walk)
        if not walk.is_done:
            await connection.execute(queries.CONTINUE, tenant_id, msgspec.json.encode(walk).decode())
            return
        pause = max(MEASURE_SECONDS, walk.seconds / WORK_PART)
        by_kind = msgspec.json.encode(walk.bytes).decode()
        total = sum(walk.bytes.values())
        await connection.execute(queries.FINISH, tenant_id, total, by_kind, pause, self._default)

    async def _go_on(self, connection: asyncpg.Connection, tenant_id: UUID, walk: MeasurementProgress) -> None:
        """Measure page after page, one at least, until the slice or the walk is over."""
        began, tables = self._clock(), list(queries.MEASURED)
        is_over = False
        while not is_over:
            table = queries.MEASURED[walk.table]
            given = [] if walk.after is None else [walk.after]
            page = await connection.fetchrow(queries.page_of(table, first=not given), tenant_id, *given)
            assert page is not None
            walk.bytes[table.kind] = walk.bytes.get(table.kind, 0) + page["bytes"]
            walk.after = page["last"]
            if walk.after is None:
                following = tables.index(walk.table) + 1
                walk.is_done = following == len(tables)
                walk.table = tables[min(following, len(tables) - 1)]
            is_over = walk.is_done or self._clock() - began >= SLICE_SECONDS
        walk.seconds += self._clock() - began

    @property
    def _default(self) -> int:
        limit: int = self._limiter.limit(TenantLimits(), "bytes")
        return limit


class StorageQuota:
    """Refuses what would store more for tenants that are full, as ``sweep`` has measured."""

    def __init__(self, database: Database, limiter: Limiter) -> None:
        self._database = database
        self._limiter = limiter
        self._full: dict[UUID, OverQuota] = {}
        self.fullest = 0.0
        """The greatest part of its limit that a tenant stores."""
        self.sweep = StorageSweep(database, limiter)
        self._tasks = Tasks("storage_quota")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Begin to read which tenants are full."""
        self._tasks.repeat(self.refresh, REFRESH_SECONDS, name="refresh")

    async def refresh(self) -> None:
        """Read it now."""
        default = self._limiter.limit(TenantLimits(), "bytes")
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(queries.FULL, default)
            self.fullest = await connection.fetchval(queries.FULLEST)
        self._full = {
            row["tenant_id"]: OverQuota(row["bytes"], row["most"]) for row in rows if 0 < row["most"] <= row["bytes"]
        }

    def check(self, tenant_id: UUID) -> None:
        """Raise ``Limited`` if the tenant stores as much as it may."""
        full = self._full.get(tenant_id)
        if full is None:
            return
        self._limiter.rejected(STORAGE)
        raise Limited(
            f"This tenant stores {show_size(full.bytes)} and may store {show_size(full.most)}: delete threads, "
            "documents or items of the store, give threads a TTL, or ask the operator for more. What was deleted "
            "counts within minutes.",
            MEASURE_SECONDS,
        )
