"""Looks at the database in the background, so that a readiness probe answers at once and from fresh news."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import sqlalchemy as sa
import structlog

from app.base.clock import now
from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.features.system.readiness import Readiness
from app.infra.db.engine import Database
from app.infra.db.revisions import REVISIONS

log = structlog.get_logger(__name__)

EVERY = 0.3
DEADLINE = 0.7
"""Seconds between looks, and for one: together the age that news can have, which is at most one second."""

FULL = "the database's disk is full"

EVERY_OTHER = 5.0
"""Seconds between the calls of what else is looked at."""

GIVEN_UP_SECONDS = 2.5
"""After so long a question that has no answer is given up, and asked on another connection."""

ROOM_SECONDS = 1.0
"""Between two looks whether a full disk has room again."""

_REVISION = sa.text("select coalesce(max(version_num), '') from alembic_version")


class DatabaseState(msgspec.Struct, frozen=True):
    """What the last look at the database found: the ``revision`` of its schema, and the migrations that it lacks."""

    latency_ms: float
    observed_at: datetime
    revision: str = ""
    lacking: tuple[str, ...] = ()


class DatabaseProbe:
    """Keeps ``readiness`` and ``database_state`` true.

    ``others`` are called every few seconds as well, each on its own; what they find they keep themselves.
    """

    def __init__(self, database: Database, readiness: Readiness, *others: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._readiness = readiness
        self._others = others
        self._tasks = Tasks("prober")
        self._known = REVISIONS
        self._trouble: str | None = None
        self._asking: asyncio.Task[tuple[str, str]] | None = None
        self._asked_at = 0.0
        self.database_state = DatabaseState(0.0, now())

    @property
    def is_ahead(self) -> bool:
        """Whether the schema is newer than this program."""
        revision = self.database_state.revision
        return bool(revision) and revision not in self._known

    def also(self, other: Callable[[], Awaitable[None]]) -> None:
        """Call ``other`` too."""
        self._others = (*self._others, other)

    def start(self) -> None:
        """Begin to look."""
        self._tasks.repeat(self.refresh, EVERY, name="database", essential=True, back_off=EVERY)
        self._tasks.repeat(self.probe_disk, ROOM_SECONDS, name="disk")
        for other in self._others:
            self._tasks.repeat(other, EVERY_OTHER, name="other")

    async def aclose(self) -> None:
        """Stop to look."""
        await self._tasks.aclose()

    async def refresh(self) -> None:
        """Look once, now."""
        began = time.perf_counter()
        asking = self._asking
        if asking is None:
            self._asked_at = began
            asking = self._asking = self._tasks.start(self._ask(), name="look")
        await asyncio.wait((asking,), timeout=DEADLINE)
        revision, reason = "", ""
        if not asking.done():
            # the next look goes on with it: to connect may take longer than a look under load
            reason = "TimeoutError"
            if began - self._asked_at > GIVEN_UP_SECONDS:
                asking.cancel()  # not waited for: a connection on which nobody answers takes seconds to be given up
                self._asking = None
        else:
            self._asking = None
            if asking.cancelled():
                reason = "CancelledError"
            else:
                revision, reason = asking.result()
        latency = round((time.perf_counter() - began) * 1000, 2)
        trouble = "the database cannot be reached" if reason else ""
        if not reason and self._database.disk.full:
            trouble = FULL
        lacking = () if reason else self._lacking(revision)
        if lacking:
            trouble = f"the database lacks the migrations {', '.join(lacking)}"
        self._say(trouble, reason)
        self.database_state = DatabaseState(latency, now(), revision, lacking)
        self._readiness.report(trouble)

    async def probe_disk(self) -> None:
        """While the disk counts as full: try to write. What it finds is kept by the database."""
        if self._database.disk.full:
            with contextlib.suppress(Unavailable):
                await self._database.probe_disk()
                log.info("disk_has_room")

    async def _ask(self) -> tuple[str, str]:
        """The revision of the schema and an empty text, or the name of the error that kept it from us."""
        try:
            return await self._database.probe(_REVISION), ""
        except Exception as error:  # noqa: BLE001  whatever keeps us from its revision, it is of no use
            return "", type(error).__name__

    def _lacking(self, revision: str) -> tuple[str, ...]:
        if not revision:
            return self._known
        if revision not in self._known:  # ahead of this program, as during a roll-out: that does not keep it from work
            return ()
        return self._known[self._known.index(revision) + 1 :]

    def _say(self, trouble: str, reason: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("database_lost", trouble=trouble, error=reason)
        elif self._trouble and not trouble:
            log.info("database_found")
        self._trouble = trouble
