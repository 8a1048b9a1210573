"""How a run gets its turn: accepted with the thread free, or claimed when it becomes free (docs/decisions/0001)."""

import functools
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from app.base.errors import Conflict, NotFound
from app.db.engine import Database
from app.db.groups import Groups
from app.runs.entries import Accept, Claimed

ACCEPT = """
with entry as (
  select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bytea[], $6::jsonb[], $7::text[], $8::bool[],
      $9::bool[], $10::uuid[], $11::float8[])
    with ordinality as e(tenant_id, thread_id, run_id, assistant_id, request, metadata, strategy, create_thread,
      temporary, owner, delay, n)
), known as (
  select e.*, a.graph_id, a.config, a.context,
    jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.assistant_id) as mark, a.metadata as assistant_metadata
  from entry e
  join assistants a on a.assistant_id = e.assistant_id and a.tenant_id = e.tenant_id
), born as (
  insert into threads (tenant_id, thread_id, metadata, status, live_run, runs, temporary)
  select tenant_id, thread_id, mark, case when delay > 0 then 'idle' else 'busy' end,
    case when delay > 0 then null else run_id end, 1, temporary
  from known where create_thread
  on conflict do nothing
  returning tenant_id, thread_id, head, last_number, runs as ordinal, metadata, live_run
), turned as (
  update threads t set
    runs = t.runs + 1,
    queued = t.queued + case when k.delay > 0 or (t.live_run is null and t.queued = 0) then 0 else 1 end,
    live_run = case when k.delay = 0 and t.live_run is null and t.queued = 0 then k.run_id else t.live_run end,
    status = case when k.delay = 0 and t.live_run is null and t.queued = 0 then 'busy' else t.status end,
    error = case when k.delay = 0 and t.live_run is null and t.queued = 0 then null else t.error end,
    interrupts = case when k.delay = 0 and t.live_run is null and t.queued = 0 then null else t.interrupts end,
    metadata = case when t.metadata @> k.mark then t.metadata else t.metadata || k.mark end,
    updated_at = now()
  from known k
  where t.thread_id = k.thread_id and t.tenant_id is not distinct from k.tenant_id
    and not (k.strategy = 'reject' and (t.live_run is not null or t.queued > 0))
  returning t.tenant_id, t.thread_id, t.head, t.last_number, t.runs as ordinal, t.metadata, t.live_run
), placed as (
  select * from born union all select * from turned
), made as (
  insert into runs (tenant_id, run_id, thread_id, assistant_id, ordinal, status, reason, request, metadata,
    multitask_strategy, temporary, epoch, attempts, owner, lease_until, available_at, created_at, started_at)
  select k.tenant_id, k.run_id, k.thread_id, k.assistant_id, p.ordinal,
    case when p.live_run = k.run_id then 'running' else 'pending' end,
    case when p.live_run = k.run_id then 'accepted' when k.delay > 0 then 'scheduled' else 'queued' end,
    k.request, k.assistant_metadata || p.metadata || k.mark || k.metadata, k.strategy, k.temporary,
    (p.live_run is not distinct from k.run_id)::int, (p.live_run is not distinct from k.run_id)::int,
    case when p.live_run = k.run_id then k.owner end,
    case when p.live_run = k.run_id then now() + make_interval(secs => $12) end,
    now() + make_interval(secs => k.delay), now(), case when p.live_run = k.run_id then now() end
  from placed p join known k on k.tenant_id = p.tenant_id and k.thread_id = p.thread_id
  returning tenant_id, run_id, metadata, ordinal, epoch, attempts, status, created_at
)
select e.n, k.graph_id as agent, k.config::text as assistant_config, k.context::text as assistant_context,
  p.head, p.last_number, p.live_run, m.ordinal, m.epoch, m.attempts, m.status, m.created_at,
  m.metadata::text as metadata, k.n is not null as has_assistant,
  case when m.run_id is null then
    (select true from threads t
     where t.thread_id = e.thread_id and t.tenant_id is not distinct from e.tenant_id limit 1)
  end as has_thread
from entry e
left join known k on k.n = e.n
left join placed p on p.tenant_id = e.tenant_id and p.thread_id = e.thread_id and k.n is not null
left join made m on m.tenant_id = e.tenant_id and m.run_id = e.run_id
"""

CLAIM = """
with due as (
  select r.tenant_id, r.run_id, r.thread_id
  from runs r join threads t on t.thread_id = r.thread_id and t.tenant_id is not distinct from r.tenant_id
  where r.status = 'pending' and r.available_at <= now() and t.live_run is null
    and ($3::uuid is null or (r.tenant_id = $3 and r.thread_id = $4))
    and not exists (
      select from runs earlier
      where earlier.tenant_id = r.tenant_id and earlier.thread_id = r.thread_id and earlier.status = 'pending'
        and earlier.ordinal < r.ordinal and earlier.available_at <= now())
  order by r.available_at
  limit $5
  for no key update of r, t skip locked
), turned as (
  update threads t set live_run = d.run_id, status = 'busy', error = null, interrupts = null,
    queued = greatest(t.queued - case when r.reason = 'scheduled' then 0 else 1 end, 0), updated_at = now()
  from due d join runs r on r.run_id = d.run_id and r.tenant_id is not distinct from d.tenant_id
  where t.thread_id = d.thread_id and t.tenant_id is not distinct from d.tenant_id and t.live_run is null
  returning t.tenant_id, t.thread_id, t.live_run, t.head, t.last_number
), claimed as (
  update runs r set
    status = 'running', reason = 'claimed', epoch = r.epoch + 1, owner = $1,
    attempts = r.attempts + case when r.reason = 'handover' then 0 else 1 end,
    lease_until = now() + make_interval(secs => $2), updated_at = now(), started_at = coalesce(r.started_at, now())
  from turned t
  where r.run_id = t.live_run and r.tenant_id is not distinct from t.tenant_id
  returning r.tenant_id, r.thread_id, r.run_id, r.assistant_id, r.owner, r.epoch, r.attempts, r.request,
    r.metadata::text as metadata, t.head, t.last_number, r.ordinal, r.temporary, r.created_at,
    r.multitask_strategy as strategy
)
select c.*, coalesce(a.graph_id, '') as agent, coalesce(a.config, '{}')::text as assistant_config,
  coalesce(a.context, '{}')::text as assistant_context
from claimed c left join assistants a on a.tenant_id = c.tenant_id and a.assistant_id = c.assistant_id
"""

RELEASE_EXPIRED = """
with lost as (
  select tenant_id, run_id, thread_id from runs
  where status = 'running' and lease_until < now()
  limit 100 for no key update skip locked
), freed as (
  update threads t set live_run = null, status = 'idle', queued = t.queued + 1, updated_at = now()
  from lost l where t.tenant_id = l.tenant_id and t.thread_id = l.thread_id and t.live_run = l.run_id
)
update runs r set status = 'pending', reason = 'recovered', owner = null, lease_until = null, updated_at = now()
from lost l where r.tenant_id = l.tenant_id and r.run_id = l.run_id
"""

HAND_OVER = """
with freed as (
  update runs set status = 'pending', reason = 'handover', owner = null, lease_until = null, updated_at = now()
  where tenant_id = $1 and run_id = $2 and epoch = $3 and owner = $4 and status = 'running'
  returning tenant_id, run_id, thread_id
)
update threads t set live_run = null, status = 'idle', queued = t.queued + 1, updated_at = now()
from freed f where t.tenant_id = f.tenant_id and t.thread_id = f.thread_id and t.live_run = f.run_id
"""

SWEEP_TEMPORARY = """
with old as (
  select t.tenant_id, t.thread_id from threads t
  where t.temporary and t.created_at < now() - make_interval(secs => $1) and t.live_run is null
    and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
        and (r.status in ('pending', 'running') or r.ended_at > now() - make_interval(secs => $1)))
  order by t.created_at limit 100 for update of t skip locked
), ended as (
  delete from runs r using old o where r.tenant_id = o.tenant_id and r.thread_id = o.thread_id
  returning r.tenant_id, r.run_id
), no_steps as (
  delete from steps x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_intents as (
  delete from tool_intents x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_events as (
  delete from events x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_items as (
  delete from checkpoint_items x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
), no_checkpoints as (
  delete from checkpoints x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
)
delete from threads t using old o where t.tenant_id = o.tenant_id and t.thread_id = o.thread_id
"""

EXTEND = """
update runs set lease_until = now() + make_interval(secs => $2)
where status = 'running' and owner = $1 and lease_until > now() and run_id = any($3)
returning run_id, cancel
"""

REQUEST_CANCEL = """
update runs set cancel = $3, updated_at = now()
where tenant_id = $1 and run_id = $2 and status = 'running'
"""

CANCEL_PENDING = """
with gone as (
  update runs set status = 'interrupted', reason = 'cancelled', updated_at = now(), ended_at = now()
  where tenant_id = $1 and run_id = $2 and status = 'pending'
  returning tenant_id, thread_id
)
update threads t set queued = greatest(t.queued - 1, 0), updated_at = now()
from gone g where t.tenant_id = g.tenant_id and t.thread_id = g.thread_id
"""


class Claims:
    """Accepts runs in groups, and claims those whose turn has come, for the owner token of this process."""

    def __init__(self, database: Database, owner: UUID, lease_seconds: float) -> None:
        self._database = database
        self.owner = owner
        self._lease = lease_seconds
        self._groups: Groups[Accept, Claimed | Exception] = Groups(
            "accept", database, self._accept, key=lambda entry: (entry.tenant_id, entry.thread_id), lanes=2
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def accept(self, entry: Accept) -> Claimed:
        """Commit ``entry`` as a run. ``started`` tells whether its turn has come at once.

        Raises ``NotFound`` for an unknown thread or assistant, ``Conflict`` when ``reject`` meets a busy thread.
        """
        result = await self._groups.submit(entry)
        if isinstance(result, Exception):
            raise result
        return result

    async def _accept(self, connection: asyncpg.Connection, entries: Sequence[Accept]) -> list[Claimed | Exception]:
        columns: list[list[Any]] = [
            list(column)
            for column in zip(
                *(
                    (
                        e.tenant_id,
                        e.thread_id,
                        e.run_id,
                        e.assistant_id,
                        e.request,
                        e.metadata.decode(),
                        e.strategy,
                        e.create_thread,
                        e.temporary,
                        e.owner,
                        e.delay,
                    )
                    for e in entries
                ),
                strict=True,
            )
        ]
        rows = await connection.fetch(ACCEPT, *columns, self._lease)
        found = {row["n"]: row for row in rows}
        return [_outcome(entry, found[n]) for n, entry in enumerate(entries, 1)]

    async def claim(self, limit: int, thread: tuple[UUID, UUID] | None = None) -> list[Claimed]:
        """Claim up to ``limit`` due runs, of one ``thread`` (tenant, thread) or of all."""
        tenant_id, thread_id = thread or (None, None)
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(CLAIM, self.owner, self._lease, tenant_id, thread_id, limit)
        return [_claimed(row, row, started=True) for row in rows]

    async def extend(self, run_ids: list[UUID]) -> dict[UUID, str | None]:
        """Extend the leases of ``run_ids``; those still ours → the cancel that was asked for."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(EXTEND, self.owner, self._lease, run_ids)
        return {row["run_id"]: row["cancel"] for row in rows}

    async def release_expired(self) -> int:
        """Put runs whose lease has ended back in line; how many."""
        async with self._database.engine_connection() as connection:
            return int((await connection.execute(RELEASE_EXPIRED)).rpartition(" ")[2])

    async def sweep_temporary(self, keep_seconds: float) -> int:
        """Remove threads of stateless runs that ended ``keep_seconds`` ago, with all that is on them; how many."""
        async with self._database.engine_connection() as connection:
            return int((await connection.execute(SWEEP_TEMPORARY, keep_seconds)).rpartition(" ")[2])

    async def hand_over(self, claimed: Claimed) -> None:
        """Give ``claimed`` back, so that any process may go on with it from its last step."""
        async with self._database.engine_connection() as connection:
            await connection.execute(HAND_OVER, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner)

    async def cancel(self, tenant_id: UUID, run_id: UUID, action: str) -> None:
        """Record that ``run_id`` shall stop; one that waits for its turn ends at once."""
        async with self._database.engine_connection() as connection:
            await connection.execute(CANCEL_PENDING, tenant_id, run_id)
            await connection.execute(REQUEST_CANCEL, tenant_id, run_id, action)


def _outcome(entry: Accept, row: asyncpg.Record) -> Claimed | Exception:
    if not row["has_assistant"]:
        return NotFound("Thread or assistant not found.")
    if row["status"] is None:
        if row["has_thread"]:
            return Conflict(
                "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
            )
        return NotFound("Thread or assistant not found.")
    return _claimed(row, entry, started=row["status"] == "running")


def _claimed(row: asyncpg.Record, of: Accept | asyncpg.Record, *, started: bool) -> Claimed:
    get = of.__getitem__ if isinstance(of, asyncpg.Record) else functools.partial(getattr, of)
    return Claimed(
        tenant_id=get("tenant_id"),
        thread_id=get("thread_id"),
        run_id=get("run_id"),
        assistant_id=get("assistant_id"),
        owner=get("owner"),
        request=get("request"),
        temporary=get("temporary"),
        agent=row["agent"],
        epoch=row["epoch"],
        attempt=row["attempts"],
        metadata=row["metadata"],
        strategy=get("strategy"),
        head=row["head"],
        last_number=row["last_number"],
        assistant_config=row["assistant_config"],
        assistant_context=row["assistant_context"],
        ordinal=row["ordinal"],
        created_at=row["created_at"],
        started=started,
    )
