"""Makes the runs of crons when their times come: in every process, one run for each time of a cron.

Whoever finds a cron due locks it, so the others pass it by; that its time has had its run is committed with that run.
A cron whose times passed while nobody was there gets one run for all of them.
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
from app.base.tasks import Tasks, to_the_end
from app.engine.entries import AcceptEntry, ClaimedRun
from app.engine.queue.claims import RunQueue
from app.features.crons.schedule import next_slot
from app.features.crons.structs import StoredPayload, run_of
from app.features.runs.creation import RunFactory, RunRequester
from app.features.runs.service import RunService
from app.infra.db.engine import CONNECTION_ERRORS, Database
from app.security.access.queries import key_is_valid

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""The longest time between two looks: a cron that another process has made or changed is seen after it."""

PAUSE_SECONDS = 0.2
"""The shortest."""

KEY_VOID = "The API key that made this cron was revoked or has expired: enable the cron with another key."
"""Why a cron is paused."""

PUNCTUAL = timedelta(minutes=1)
"""A time found later than this was missed; one that was missed is not made up once the cron has ended."""

_DUE = """
select tenant_id, cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, payload,
  metadata::text as metadata, next_run_date as slot
from crons
where next_run_date <= $1 and cron_id <> all($2::uuid[]) and tenant_id <> all($3::uuid[])
order by next_run_date
limit 1
for no key update skip locked
"""

_NEXT = """
select next_run_date from crons
where next_run_date is not null and cron_id <> all($1::uuid[]) and tenant_id <> all($2::uuid[])
order by next_run_date limit 1
"""

_HOLD_THREAD = "select 1 from threads where tenant_id = $1 and thread_id = $2 for no key update skip locked"
"""Who deletes a thread locks it and then its crons: a cron that waited for its thread could wait for ever."""

_TAKE_SLOT = """
insert into cron_slots (tenant_id, cron_id, slot) values ($1, $2, $3) on conflict do nothing returning 1
"""

_KEEP_SLOT = """
with old as (
  delete from cron_slots where tenant_id = $1 and cron_id = $2 and slot < $3::timestamptz - interval '1 day'
)
update cron_slots set run_id = $4, problem = $5 where tenant_id = $1 and cron_id = $2 and slot = $3
"""

_ADVANCE = "update crons set next_run_date = $3 where tenant_id = $1 and cron_id = $2"

_PAUSE = "update crons set enabled = false, next_run_date = null where tenant_id = $1 and cron_id = $2"

_MARK_THREAD = """
update threads set metadata = metadata || jsonb_build_object('cron_id', $3::text)
where tenant_id = $1 and thread_id = $2
"""


class CommittedRun(msgspec.Struct, frozen=True):
    """A run that a cron has made, committed and not yet started."""

    entry: AcceptEntry
    claimed: ClaimedRun


class CronScheduler:
    """The crons of all tenants, as one process sees to them. ``clock`` tells what is due."""

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
        """Tenants that have started as many runs as they may now: the seconds until they may start another."""
        self._tasks = Tasks("crons")

    def start(self) -> None:
        """Begin to look for crons that are due."""
        self._tasks.repeat(self._turn, PAUSE_SECONDS, name="scheduler", essential=True)

    async def aclose(self) -> None:
        """Make no more runs; one that is being made is made."""
        await self._tasks.aclose()

    async def _turn(self) -> None:
        failed = await self.fire_due()
        seconds = await to_the_end(self._until_next(failed))
        seconds = min([seconds, *self._limited.values()])
        await asyncio.sleep(seconds - PAUSE_SECONDS)

    async def _until_next(self, without: list[UUID]) -> float:
        """Seconds until a cron is due, within the limits of a look."""
        async with self._database.engine_connection() as connection:
            slot: datetime | None = await connection.fetchval(_NEXT, without, list(self._limited))
        if slot is None:
            return LOOK_SECONDS
        return max(PAUSE_SECONDS, min((slot - self._clock()).total_seconds(), LOOK_SECONDS))

    async def fire_due(self) -> list[UUID]:
        """Make a run for every cron that is due and that no other process sees to; the ids of those that failed.

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
                    more = await to_the_end(self._fire_next(connection, at, seen))
                except (Unavailable, *CONNECTION_ERRORS):
                    raise
                except Exception:  # the edge: whatever one cron raises, the others have their turn
                    if len(seen) == before:
                        raise
                    log.exception("cron_failed", cron_id=str(seen[-1]))
                    failed.append(seen[-1])
        return failed

    async def _fire_next(self, connection: asyncpg.Connection, at: datetime, seen: list[UUID]) -> bool:
        """See to one cron that is due and not ``seen``, which grows by it; whether there was one."""
        made = None
        async with connection.transaction():
            cron = await connection.fetchrow(_DUE, at, seen, list(self._limited))
            if cron is None:
                return False
            if wait := await self._runs.admission.count_cron(cron["tenant_id"]):
                self._limited[cron["tenant_id"]] = wait  # it stays due
                return True
            seen.append(cron["cron_id"])
            thread = cron["thread_id"]
            if thread is None or await connection.fetchval(_HOLD_THREAD, cron["tenant_id"], thread):
                made = await self._fire(connection, cron, at)
        if made is not None:
            self._runs.launch(made.entry, made.claimed)
        return True

    async def _fire(self, connection: asyncpg.Connection, cron: asyncpg.Record, at: datetime) -> CommittedRun | None:
        tenant_id, cron_id, slot, end = cron["tenant_id"], cron["cron_id"], cron["slot"], cron["end_time"]
        following = next_slot(cron["schedule"], cron["timezone"], max(at, slot))
        if end is not None and following is not None and following > end:
            following = None
        await connection.execute(_ADVANCE, tenant_id, cron_id, following)
        if end is not None and at > end and at - slot > PUNCTUAL:
            return None
        if not await connection.fetchval(_TAKE_SLOT, tenant_id, cron_id, slot):
            return None
        made, problem = None, None
        try:
            async with connection.transaction():
                made = await self._accept(connection, cron)
        except Unavailable:
            raise
        except AgentServiceError as error:
            problem = str(error)
            if isinstance(error, Unauthenticated):
                await connection.execute(_PAUSE, tenant_id, cron_id)
            log.warning("cron_skipped", cron_id=str(cron_id), slot=slot.isoformat(), reason=problem)
        run_id = None if made is None else made.entry.run_id
        await connection.execute(_KEEP_SLOT, tenant_id, cron_id, slot, run_id, problem)
        return made

    async def _accept(self, connection: asyncpg.Connection, cron: asyncpg.Record) -> CommittedRun:
        """The run of ``cron``, accepted on ``connection``. Raises what ``RunFactory`` and ``RunQueue`` raise."""
        tenant_id, cron_id = cron["tenant_id"], str(cron["cron_id"])
        payload = msgspec.json.decode(cron["payload"], type=StoredPayload)
        if payload.key_id:
            async with self._database.reading(tenant_id) as session:
                if not await key_is_valid(session, tenant_id, payload.key_id):
                    raise Unauthenticated(KEY_VOID)
        metadata = {**msgspec.json.decode(cron["metadata"]), "cron_id": cron_id}
        run = run_of(payload, str(cron["assistant_id"]), metadata, cron["on_run_completed"])
        by = RunRequester(
            user=payload.langgraph_auth_user, user_id=payload.langgraph_auth_user_id, actor=payload.requested_by
        )
        asked = await self._creation.entry(tenant_id, cron["thread_id"], run, by)
        async with self._runs.admission.admitted([asked], None) as (entry,):
            (claimed,) = await self._claims.accept_on(connection, [entry])
        if cron["on_run_completed"] == "keep":
            await connection.execute(_MARK_THREAD, tenant_id, claimed.thread_id, cron_id)
        return CommittedRun(entry, claimed)
