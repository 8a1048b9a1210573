"""Probe the database in the background, so that readiness checks answer at once from a recent result."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog

from app.base.clock import now
from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.features.system import queries
from app.features.system.readiness import Readiness
from app.infra.db.engine import Database
from app.infra.db.revisions import REVISIONS

log = structlog.get_logger(__name__)

PROBE_INTERVAL = 0.3
PROBE_TIMEOUT = 0.7
"""In seconds; a result is at most their sum old, which is one second."""

DISK_FULL = "the database's disk is full"

OTHER_INTERVAL = 5.0
"""Seconds between calls of the other probes."""

ABANDON_SECONDS = 2.5
"""A query without a result for this long is cancelled and sent on another connection."""

DISK_INTERVAL = 1.0
"""Seconds between checks whether a full disk has free space again."""


class DatabaseState(msgspec.Struct, frozen=True):
    """The result of the last probe: the ``revision`` of the schema and the migrations that it lacks."""

    latency_ms: float
    observed_at: datetime
    revision: str = ""
    lacking: tuple[str, ...] = ()


class DatabaseProbe:
    """Keeps ``readiness`` and ``database_state`` up to date. ``others``: probes to call every ``OTHER_INTERVAL``."""

    def __init__(self, database: Database, readiness: Readiness, *others: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._readiness = readiness
        self._others = others
        self._tasks = Tasks("prober")
        self._known = REVISIONS
        self._trouble: str | None = None
        self._query: asyncio.Task[tuple[str, str]] | None = None
        self._queried_at = 0.0
        self.database_state = DatabaseState(0.0, now())

    @property
    def is_ahead(self) -> bool:
        """Return whether the schema is newer than this program."""
        revision = self.database_state.revision
        return bool(revision) and revision not in self._known

    def also(self, other: Callable[[], Awaitable[None]]) -> None:
        """Add another probe; call before ``start``."""
        self._others = (*self._others, other)

    def start(self) -> None:
        """Start probing."""
        self._tasks.repeat(self.refresh, PROBE_INTERVAL, name="database", essential=True, back_off=PROBE_INTERVAL)
        self._tasks.repeat(self.probe_disk, DISK_INTERVAL, name="disk")
        for other in self._others:
            self._tasks.repeat(other, OTHER_INTERVAL, name="other")

    async def aclose(self) -> None:
        """Stop probing."""
        await self._tasks.aclose()

    async def refresh(self) -> None:
        """Probe once, now."""
        started_at = time.perf_counter()
        query = self._query
        if query is None:
            self._queried_at = started_at
            query = self._query = self._tasks.start(self._read_revision(), name="query")
        await asyncio.wait((query,), timeout=PROBE_TIMEOUT)
        revision, reason = "", ""
        if not query.done():
            # the next probe awaits the same query: under load, connecting may take longer than one probe
            reason = "TimeoutError"
            if started_at - self._queried_at > ABANDON_SECONDS:
                query.cancel()  # not awaited: closing a dead connection takes seconds
                self._query = None
        else:
            self._query = None
            if query.cancelled():
                reason = "CancelledError"
            else:
                revision, reason = query.result()
        latency = round((time.perf_counter() - started_at) * 1000, 2)
        trouble = "the database cannot be reached" if reason else ""
        if not reason and self._database.disk.full:
            trouble = DISK_FULL
        lacking = () if reason else self._lacking(revision)
        if lacking:
            trouble = f"the database lacks the migrations {', '.join(lacking)}"
        self._log_change(trouble, reason)
        self.database_state = DatabaseState(latency, now(), revision, lacking)
        self._readiness.report(trouble)

    async def probe_disk(self) -> None:
        """Try to write while the disk counts as full; the database records the result."""
        if self._database.disk.full:
            with contextlib.suppress(Unavailable):
                await self._database.probe_disk()
                log.info("disk_has_room")

    async def _read_revision(self) -> tuple[str, str]:
        """Return the revision of the schema and an empty text, or an empty text and the name of the error."""
        try:
            return await self._database.probe(queries.REVISION), ""
        except Exception as error:  # noqa: BLE001  any error means that the database cannot be used
            return "", type(error).__name__

    def _lacking(self, revision: str) -> tuple[str, ...]:
        if not revision:
            return self._known
        if revision not in self._known:  # newer than this program, as during a roll-out
            return ()
        return self._known[self._known.index(revision) + 1 :]

    def _log_change(self, trouble: str, reason: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("database_lost", trouble=trouble, error=reason)
        elif self._trouble and not trouble:
            log.info("database_found")
        self._trouble = trouble
