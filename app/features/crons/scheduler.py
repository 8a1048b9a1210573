"""Start the runs of crons that are due. Runs in every process; each time of a cron gets exactly one run.

A process locks a due cron, so others skip it, and commits the slot together with its run. A cron that missed several
times while no process was running gets one run for all of them.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.base.clock import now
from app.base.errors import AgentServiceError, Unauthenticated, Unavailable
from app.base.tasks import Tasks, run_to_completion
from app.engine.entries import AcceptEntry, ClaimedRun
from app.engine.queue.claims import RunQueue
from app.features.crons import queries
from app.features.crons.schedule import next_slot
from app.features.crons.structs import StoredPayload, run_of
from app.features.runs.creation import RunFactory, RunRequester
from app.features.runs.service import RunService
from app.infra.db.engine import CONNECTION_ERRORS, Database
from app.security.access.queries import key_is_valid

log = structlog.get_logger(__name__)

MAX_POLL_SECONDS = 5.0
"""The longest poll interval: crons that another process has created or changed are seen after it."""

MIN_POLL_SECONDS = 0.2

KEY_INVALID = "The API key that made this cron was revoked or has expired: enable the cron with another key."
"""Why a cron is paused."""

GRACE = timedelta(minutes=1)
"""A slot found later than this was missed; missed slots are not made up for after the cron's end."""


class CommittedRun(msgspec.Struct, frozen=True):
    """A cron's run, committed and not yet started."""

    entry: AcceptEntry
    claimed: ClaimedRun


class CronScheduler:
    """Schedules the crons of all tenants in one process. ``clock`` defines what is due."""

    def __init__(
        self,
        database: Database,
        claims: RunQueue,
        creation: RunFactory,
        runs: RunService,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._database = database
        self._claims = claims
        self._creation = creation
        self._runs = runs
        self._clock = clock
        self._limited: dict[UUID, float] = {}
        """Rate-limited tenants, with the seconds until they may start another run."""
        self._tasks = Tasks("crons")

    def start(self) -> None:
        """Start polling for due crons."""
        self._tasks.repeat(self._poll, MIN_POLL_SECONDS, name="scheduler", essential=True)

    async def aclose(self) -> None:
        """Start no more runs; a run in progress is committed first."""
        await self._tasks.aclose()

    async def _poll(self) -> None:
        failed = await self.fire_due()
        seconds = await run_to_completion(self._until_next(failed))
        seconds = min([seconds, *self._limited.values()])
        await asyncio.sleep(seconds - MIN_POLL_SECONDS)

    async def _until_next(self, without: list[UUID]) -> float:
        """Return the seconds until a cron is due, bounded by the poll intervals."""
        async with self._database.engine_connection() as connection:
            slot: datetime | None = await connection.fetchval(queries.NEXT_DUE, without, list(self._limited))
        if slot is None:
            return MAX_POLL_SECONDS
        return max(MIN_POLL_SECONDS, min((slot - self._clock()).total_seconds(), MAX_POLL_SECONDS))

    async def fire_due(self) -> list[UUID]:
        """Start a run for every due cron that no other process has locked; return the ids of crons that failed.

        Raises ``Unavailable``.
        """
        at = self._clock()
        seen: list[UUID] = []
        failed: list[UUID] = []
        self._limited = {}
        async with self._database.engine_connection() as connection:
            more = True
            while more:
                before = len(seen)
                try:
                    more = await run_to_completion(self._fire_next(connection, at, seen))
                except (Unavailable, *CONNECTION_ERRORS):
                    raise
                except Exception:  # the edge: an error of one cron must not stop the others
                    if len(seen) == before:
                        raise
                    log.exception("cron_failed", cron_id=str(seen[-1]))
                    failed.append(seen[-1])
        return failed

    async def _fire_next(self, connection: asyncpg.Connection, at: datetime, seen: list[UUID]) -> bool:
        """Process one due cron that is not in ``seen`` and add it; return False if there is none."""
        committed = None
        async with connection.transaction():
            cron = await connection.fetchrow(queries.CLAIM_DUE, at, seen, list(self._limited))
            if cron is None:
                return False
            if wait := await self._runs.admission.count_cron(cron["tenant_id"]):
                self._limited[cron["tenant_id"]] = wait  # it stays due
                return True
            seen.append(cron["cron_id"])
            thread = cron["thread_id"]
            if thread is None or await connection.fetchval(queries.LOCK_THREAD, cron["tenant_id"], thread):
                committed = await self._fire(connection, cron, at)
        if committed is not None:
            self._runs.launch(committed.entry, committed.claimed)
        return True

    async def _fire(self, connection: asyncpg.Connection, cron: asyncpg.Record, at: datetime) -> CommittedRun | None:
        tenant_id, cron_id, slot, end = cron["tenant_id"], cron["cron_id"], cron["slot"], cron["end_time"]
        following = next_slot(cron["schedule"], cron["timezone"], max(at, slot))
        if end is not None and following is not None and following > end:
            following = None
        await connection.execute(queries.ADVANCE, tenant_id, cron_id, following)
        if end is not None and at > end and at - slot > GRACE:
            return None
        if not await connection.fetchval(queries.CLAIM_SLOT, tenant_id, cron_id, slot):
            return None
        committed, problem = None, None
        try:
            async with connection.transaction():
                committed = await self._accept(connection, cron)
        except Unavailable:
            raise
        except AgentServiceError as error:
            problem = str(error)
            if isinstance(error, Unauthenticated):
                await connection.execute(queries.PAUSE, tenant_id, cron_id)
            log.warning("cron_skipped", cron_id=str(cron_id), slot=slot.isoformat(), reason=problem)
        run_id = None if committed is None else committed.entry.run_id
        await connection.execute(queries.RECORD_SLOT, tenant_id, cron_id, slot, run_id, problem)
        return committed

    async def _accept(self, connection: asyncpg.Connection, cron: asyncpg.Record) -> CommittedRun:
        """Accept the run of ``cron`` on ``connection``. Raises as ``RunFactory`` and ``RunQueue``."""
        tenant_id, cron_id = cron["tenant_id"], str(cron["cron_id"])
        payload = msgspec.json.decode(cron["payload"], type=StoredPayload)
        if payload.key_id:
            async with self._database.reading(tenant_id) as session:
                if not await key_is_valid(session, tenant_id, payload.key_id):
                    raise Unauthenticated(KEY_INVALID)
        metadata = {**msgspec.json.decode(cron["metadata"]), "cron_id": cron_id}
        run = run_of(payload, str(cron["assistant_id"]), metadata, cron["on_run_completed"])
        by = RunRequester(
            user=payload.langgraph_auth_user, user_id=payload.langgraph_auth_user_id, actor=payload.requested_by
        )
        requested = await self._creation.entry(tenant_id, cron["thread_id"], run, by)
        async with self._runs.admission.admitted([requested], None) as (entry,):
            (claimed,) = await self._claims.accept_on(connection, [entry])
        if cron["on_run_completed"] == "keep":
            await connection.execute(queries.MARK_THREAD, tenant_id, claimed.thread_id, cron_id)
        return CommittedRun(entry, claimed)
