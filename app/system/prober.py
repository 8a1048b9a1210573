"""Looks at the database in the background, so that a readiness probe answers at once and from fresh news."""

import asyncio
import time
from datetime import datetime

import msgspec
import sqlalchemy as sa
import structlog

from app.base.clock import now
from app.base.errors import AgentServiceError
from app.base.tasks import Tasks
from app.db.engine import Database
from app.system.state import Readiness

log = structlog.get_logger(__name__)

EVERY = 0.5
DEADLINE = 0.8
"""Seconds that a look may take: with ``EVERY``, a stopped database is noticed well within two seconds."""

_REVISION = sa.text("select version_num from alembic_version")


class DatabaseState(msgspec.Struct, frozen=True):
    """What the last look at the database found. ``revision`` is that of its schema."""

    ok: bool
    latency_ms: float
    observed_at: datetime
    revision: str = ""


class Prober:
    """Keeps ``readiness`` and ``database_state`` true."""

    def __init__(self, database: Database, readiness: Readiness) -> None:
        self._database = database
        self._readiness = readiness
        self._tasks = Tasks("prober")
        self.database_state = DatabaseState(ok=False, latency_ms=0.0, observed_at=now())

    def start(self) -> None:
        """Begin to look."""
        self._tasks.start(self._watch(), name="database")

    async def aclose(self) -> None:
        """Stop to look."""
        await self._tasks.aclose()

    async def look(self) -> None:
        """Look once, now."""
        began = time.perf_counter()
        revision = ""
        try:
            async with asyncio.timeout(DEADLINE):
                revision = await self._database.probe(_REVISION)
        except (AgentServiceError, TimeoutError) as error:
            if self.database_state.ok:
                log.warning("database_lost", error=type(error).__name__)
        else:
            if not self.database_state.ok:
                log.info("database_found")
        latency = round((time.perf_counter() - began) * 1000, 2)
        self.database_state = DatabaseState(bool(revision), latency, now(), revision)
        self._readiness.report("" if revision else "the database cannot be reached")

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY)
