"""What is swept away: threads of stateless runs some time after their end, expired threads, keys that are over."""

from app.bus.postgres_relay import SWEEP
from app.db.engine import Database
from app.idempotency.queries import PRUNE
from app.threads.keeping import TO_LATEST

TEMPORARY = """
  select t.tenant_id, t.thread_id from threads t
  where t.temporary and t.created_at < now() - make_interval(secs => $1) and t.live_run is null
    and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
        and (r.status in ('pending', 'running') or r.ended_at > now() - make_interval(secs => $1)))
    and not exists (
      select from webhook_deliveries d
      where d.tenant_id = t.tenant_id and d.thread_id = t.thread_id and d.status = 'pending' and d.body is null)
    and not exists (select from idempotency_keys k where k.tenant_id = t.tenant_id and k.thread_id = t.thread_id)
  order by t.created_at limit 100 for update of t skip locked
"""
"""A run that was asked for with a key can be asked for again as long as the key is known."""

EXPIRED = """
  select t.tenant_id, t.thread_id from threads t
  where t.ttl_minutes is not null and t.updated_at < now() - make_interval(secs => 60 * t.ttl_minutes)
    and t.live_run is null and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id and r.status = 'pending')
  limit 100 for update of t skip locked
"""

RESTED = """
  select t.tenant_id, t.thread_id, t.head from threads t
  where t.keep_minutes is not null and t.updated_at < now() - make_interval(secs => 60 * t.keep_minutes)
    and t.live_run is null and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id and r.status = 'pending')
    and exists (
      select from checkpoints c
      where c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id <> t.head)
  limit 100 for update of t skip locked
"""
"""A run that waits may fork from any checkpoint, so nothing goes before it has had its turn."""

_REMOVE = """
with old as (
  <which>
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


LOG_KEPT = "interval '24 hours'"
"""How long after its end the stream of a run can be read again."""

EVENTS = """
with old as (
  select e.tenant_id, e.run_id, e.epoch, e.seq
  from events e join runs r on r.run_id = e.run_id and r.tenant_id = e.tenant_id
  where e.created_at < now() - <kept> and r.ended_at < now() - <kept>
  limit 10000
)
delete from events e using old o
where e.tenant_id = o.tenant_id and e.run_id = o.run_id and e.epoch = o.epoch and e.seq = o.seq
""".replace("<kept>", LOG_KEPT)


class Sweeps:
    """Sweeps the tables of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, keep_seconds: float) -> None:
        """Sweep everything; stateless runs stay for ``keep_seconds``."""
        await self.temporary(keep_seconds)
        await self.expired()
        await self.rested()
        await self.keys()
        await self.events()
        await self._removed(SWEEP)

    async def temporary(self, keep_seconds: float) -> int:
        """Remove threads of stateless runs that ended ``keep_seconds`` ago, with all that is on them; how many."""
        return await self._removed(_REMOVE.replace("<which>", TEMPORARY), keep_seconds)

    async def expired(self) -> int:
        """Remove threads on which nothing has happened for as long as they may rest; how many."""
        return await self._removed(_REMOVE.replace("<which>", EXPIRED))

    async def rested(self) -> int:
        """Take threads that have rested for long enough back to their newest checkpoint; how many."""
        return await self._removed(TO_LATEST.replace("<which>", RESTED))

    async def keys(self) -> int:
        """Forget idempotency keys whose time is over; how many."""
        return await self._removed(PRUNE)

    async def events(self) -> int:
        """Forget the event logs of runs that ended long ago; how many rows."""
        return await self._removed(EVENTS)

    async def _removed(self, statement: str, *parameters: object) -> int:
        async with self._database.engine_connection() as connection:
            return int((await connection.execute(statement, *parameters)).rpartition(" ")[2])
