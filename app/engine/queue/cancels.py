"""How runs are stopped from outside: those that wait for their turn at once, a live one by its owner.

Actions: ``interrupt`` keeps what the run has committed; ``rollback`` removes the run and puts its thread back to where
it was before; ``supersede`` is an interrupt by a run that takes the thread over.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from app.domain.lifecycle import Reason
from app.engine.entries import ClaimedRun
from app.engine.queue.sql import ENDED_PAUSE
from app.infra.db.engine import Database

REASONS = {"interrupt": Reason.CANCELLED, "supersede": Reason.SUPERSEDED}

GRACE_SECONDS = 1.5
"""How long an owner has to end a run that was cancelled, before anybody ends it in its place."""

_DEAF = f"(r.lease_until < now() or r.updated_at < now() - interval '{GRACE_SECONDS} seconds')"
"""While a run is live its row changes with a claim and with the first cancel alone."""

_PENDING = """
with waiting as (
  select tenant_id, run_id, thread_id, reason, epoch from runs
  where tenant_id = $1 and status = 'pending' and {which}
  for no key update
), counted as (
  select tenant_id, thread_id, count(*) filter (where reason <> 'scheduled') as queued
  from waiting group by tenant_id, thread_id
), freed as (
  update threads t set queued = greatest(t.queued - c.queued, 0), updated_at = now(),
    status = case when t.live_run is null and exists (
        select from waiting w where w.thread_id = t.thread_id and w.epoch = 0 and <ended_pause>)
      then 'interrupted' else t.status end
  from counted c where t.tenant_id = c.tenant_id and t.thread_id = c.thread_id
), reopened as (
  update questions q set closed_at = null, closed_by = null
  from waiting w
  where w.epoch = 0 and q.tenant_id = w.tenant_id and q.thread_id = w.thread_id and q.closed_by = w.run_id
)
""".replace("<ended_pause>", ENDED_PAUSE.replace("<run>", "w.run_id"))
"""A run that never began has answered nothing: the questions that it closed when it was accepted are open again, and
the pause that it ended is one again."""

_END_PENDING = (
    _PENDING
    + """
update runs r set status = 'interrupted', reason = $3, updated_at = now(), ended_at = now()
from waiting w where r.tenant_id = w.tenant_id and r.run_id = w.run_id
returning r.run_id
"""
)
_DROP_PENDING = (
    _PENDING
    + """
delete from runs r using waiting w where r.tenant_id = w.tenant_id and r.run_id = w.run_id returning r.run_id
"""
)
_LIVE = """
update runs set cancel = $3, updated_at = case when cancel is null then now() else updated_at end
where tenant_id = $1 and status = 'running' and {which} returning run_id
"""
_BY_ID = "run_id = any($2::uuid[])"
_ON_THREAD = "thread_id = $2"

MATCHING = """
select run_id from runs
where tenant_id = $1 and status = any($2) and ($3::uuid is null or thread_id = $3)
  and ($4::uuid[] is null or run_id = any($4))
"""

MATCHING_OWNED = (
    MATCHING
    + """  and exists (select from threads t
    where t.tenant_id = runs.tenant_id and t.thread_id = runs.thread_id and t.metadata @> $5::jsonb)
"""
)

LOCK_THREAD = "select from threads where tenant_id = $1 and thread_id = $2 for no key update"
LOCK_THREADS = """
select from threads
where tenant_id = $1 and thread_id in (select thread_id from runs where tenant_id = $1 and run_id = any($2))
order by thread_id for no key update
"""
"""A thread is locked before its runs everywhere, so that two never wait for each other."""

_ROLL_BACK = """
with <gone>, restored as (
  update threads t set
    head = (t.before->>'head')::uuid, status = coalesce(t.before->>'status', 'idle'),
    error = nullif(t.before->'error', 'null'), interrupts = nullif(t.before->'interrupts', 'null'),
    answered = nullif(t.before->'answered', 'null'), before = null, live_run = null,
    queued = <queued>, updated_at = now(), state_updated_at = now()
  from gone g where t.tenant_id = g.tenant_id and t.thread_id = g.thread_id and <is_on>
  returning t.queued
), reopened as (
  update questions q set closed_at = null, closed_by = null
  from gone g where q.tenant_id = g.tenant_id and q.thread_id = g.thread_id and q.closed_by = g.run_id
), no_questions as (
  delete from questions q using gone g
  where q.tenant_id = g.tenant_id and q.thread_id = g.thread_id and q.run_id = g.run_id
), no_steps as (
  delete from steps x using gone g where x.tenant_id = g.tenant_id and x.run_id = g.run_id
), no_intents as (
  delete from tool_intents x using gone g
  where x.tenant_id = g.tenant_id and x.run_id = g.run_id and x.tool_class not in ('unsafe', 'reconcilable')
), kept_intents as (
  update tool_intents x set thread_id = g.thread_id
  from gone g
  where x.tenant_id = g.tenant_id and x.run_id = g.run_id and x.tool_class in ('unsafe', 'reconcilable')
), no_events as (
  delete from events x using gone g where x.tenant_id = g.tenant_id and x.run_id = g.run_id
), no_items as (
  delete from checkpoint_items x using gone g join threads t on t.tenant_id = g.tenant_id and t.thread_id = g.thread_id
  where x.tenant_id = g.tenant_id and x.thread_id = g.thread_id
    and x.number > coalesce((t.before->>'last_number')::bigint, 0)
), no_checkpoints as (
  delete from checkpoints x using gone g
  where x.tenant_id = g.tenant_id and x.thread_id = g.thread_id and x.run_id = g.run_id
)
select queued from restored
"""
"""All parts see the thread as it was. Calls that cannot be repeated stay known: what they did is not undone."""

_LIVE_GONE = """
thread as (
  select tenant_id, thread_id, live_run from threads
  where tenant_id = $1 and thread_id = $5 and live_run = $2 for no key update
), gone as (
  delete from runs r using thread t where r.tenant_id = t.tenant_id and r.run_id = t.live_run and r.status = 'running'
    and (r.epoch = $3 and r.owner = $4 or $3::int is null and r.cancel = 'rollback' and <deaf>)
  returning r.tenant_id, r.run_id, r.thread_id
)
""".replace("<deaf>", _DEAF)

_BEGUN_GONE = """
gone as (
  delete from runs r
  where r.tenant_id = $1 and r.status = 'pending' and r.epoch > 0 and <which>
  returning r.tenant_id, r.run_id, r.thread_id
)
"""


def _roll_back(gone: str, queued: str, is_on: str) -> str:
    statement = _ROLL_BACK.replace("<gone>", gone.strip()).replace("<queued>", queued)
    return statement.replace("<is_on>", is_on)


ROLL_BACK = _roll_back(_LIVE_GONE, "t.queued", "t.live_run = g.run_id")
"""A live run; by its owner, or (without an epoch) by anybody once the owner had its time."""

_ROLL_BACK_BEGUN = _roll_back(_BEGUN_GONE, "greatest(t.queued - 1, 0)", "t.live_run is null")
"""A run that has run and waits for its next owner: its thread, which the caller has locked, has had no other since."""

EXPIRED = """
select tenant_id, run_id, thread_id, cancel from runs r
where status = 'running' and cancel is not null and <deaf>
""".replace("<deaf>", _DEAF)

END_EXPIRED = """
with thread as (
  select tenant_id, thread_id, live_run, head from threads
  where tenant_id = $1 and thread_id = $4 and live_run = $2 for no key update
), ended as (
  update runs r set status = 'interrupted', reason = $3, owner = null, lease_until = null, checkpoint_id = t.head,
    updated_at = now(), ended_at = now()
  from thread t
  where r.tenant_id = t.tenant_id and r.run_id = t.live_run and r.status = 'running' and r.cancel is not null
    and <deaf>
  returning r.tenant_id, r.run_id, r.thread_id
)
update threads t set live_run = null, status = 'idle', updated_at = now()
from ended e where t.tenant_id = e.tenant_id and t.thread_id = e.thread_id and t.live_run = e.run_id
""".replace("<deaf>", _DEAF)


class RunCanceller:
    """Stops runs of any process: in the database first, so that no owner's death undoes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(self, tenant_id: UUID, run_ids: Sequence[UUID], action: str) -> None:
        """Record that ``run_ids`` shall stop; those that wait for their turn end, or go, at once."""
        async with self._database.engine_connection() as connection, connection.transaction():
            await connection.execute(LOCK_THREADS, tenant_id, list(run_ids))
            await _stop(connection, tenant_id, _BY_ID, list(run_ids), action)

    async def matching(
        self,
        tenant_id: UUID,
        statuses: Sequence[str],
        thread_id: UUID | None,
        run_ids: Sequence[UUID] | None,
        owned: str | None = None,
    ) -> list[UUID]:
        """The runs in one of ``statuses``, of one thread, or out of ``run_ids``, on threads that are ``owned``."""
        which = tenant_id, list(statuses), thread_id, run_ids and list(run_ids)
        async with self._database.engine_connection() as connection:
            if owned is None:
                rows = await connection.fetch(MATCHING, *which)
            else:
                rows = await connection.fetch(MATCHING_OWNED, *which, owned)
        return [row["run_id"] for row in rows]

    async def roll_back(self, claimed: ClaimedRun) -> int | None:
        """Remove ``claimed`` and all it did; how many runs wait for the thread, None when it has another owner."""
        async with self._database.engine_connection() as connection:
            queued: int | None = await connection.fetchval(
                ROLL_BACK, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner, claimed.thread_id
            )
        return queued

    async def finish_expired(self) -> int:
        """End what shall stop and whose owner is dead or deaf; how many runs."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(EXPIRED)
            for row in rows:
                if row["cancel"] == "rollback":
                    await connection.fetchval(ROLL_BACK, row["tenant_id"], row["run_id"], None, None, row["thread_id"])
                else:
                    reason = REASONS[row["cancel"]]
                    await connection.execute(END_EXPIRED, row["tenant_id"], row["run_id"], reason, row["thread_id"])
        return len(rows)


async def supersede(connection: asyncpg.Connection, tenant_id: UUID, thread_id: UUID, action: str) -> None:
    """Stop everything on a thread for a run that takes it over; its row stays locked until the transaction ends."""
    await connection.execute(LOCK_THREAD, tenant_id, thread_id)
    await _stop(connection, tenant_id, _ON_THREAD, thread_id, action)


async def _stop(connection: asyncpg.Connection, tenant_id: UUID, which: str, what: Any, action: str) -> None:
    if action == "rollback":
        await connection.execute(_ROLL_BACK_BEGUN.replace("<which>", which), tenant_id, what)
        await connection.execute(_DROP_PENDING.format(which=which), tenant_id, what)
    else:
        await connection.execute(_END_PENDING.format(which=which), tenant_id, what, REASONS[action])
    await connection.execute(_LIVE.format(which=which), tenant_id, what, action)
