"""SQL of retention: find expired rows and delete them with all that belongs to them, in batches."""

from app.engine.checkpoints.sql import TO_LATEST, UNUSED
from app.engine.queue.sql import forget_tool_calls

_TEMPORARY = """
candidates as (
  select tenant_id, thread_id, created_at as at from threads
  where temporary and created_at >= $1 and (created_at, thread_id, tenant_id) > ($1, $2::uuid, $3::uuid)
    and created_at < now() - make_interval(secs => $4)
  order by created_at, thread_id, tenant_id limit <batch>
), old as (
  select t.tenant_id, t.thread_id from threads t join candidates c using (tenant_id, thread_id)
  where t.live_run is null
    and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
        and (r.status in ('pending', 'running') or r.ended_at > now() - make_interval(secs => $4)))
    and not exists (
      select from webhook_deliveries d
      where d.tenant_id = t.tenant_id and d.thread_id = t.thread_id and d.status = 'pending' and d.body is null)
    and not exists (select from idempotency_keys k where k.tenant_id = t.tenant_id and k.thread_id = t.thread_id)
  for update of t skip locked
)"""
"""A run requested with an idempotency key stays while the key is known."""

_EXPIRED = """
candidates as (
  select tenant_id, thread_id, updated_at as at from threads
  where ttl_minutes is not null and updated_at >= $1 and (updated_at, thread_id, tenant_id) > ($1, $2::uuid, $3::uuid)
    and updated_at < now() - make_interval(secs => 60 * ttl_minutes)
  order by updated_at, thread_id, tenant_id limit <batch>
), old as (
  select t.tenant_id, t.thread_id from threads t join candidates c using (tenant_id, thread_id)
  where t.updated_at < now() - make_interval(secs => 60 * t.ttl_minutes) and <free>
  for update of t skip locked
)"""

_RESTED = """
candidates as (
  select tenant_id, thread_id, updated_at as at from threads
  where keep_minutes is not null and updated_at >= $1 and (updated_at, thread_id, tenant_id) > ($1, $2::uuid, $3::uuid)
    and updated_at < now() - make_interval(secs => 60 * keep_minutes)
  order by updated_at, thread_id, tenant_id limit <batch>
), old as (
  select t.tenant_id, t.thread_id, t.head from threads t join candidates c using (tenant_id, thread_id)
  where t.updated_at < now() - make_interval(secs => 60 * t.keep_minutes) and <free>
    and exists (
      select from checkpoints x
      where x.tenant_id = t.tenant_id and x.thread_id = t.thread_id and x.checkpoint_id <> t.head)
  for update of t skip locked
)"""
"""A queued run may fork from any checkpoint, so none is deleted before it."""

_ALL_THREADS = """
candidates as (
  select tenant_id, thread_id, thread_id || ' ' || tenant_id as place from threads
  where (thread_id, tenant_id) > ($1::uuid, $2::uuid)
  order by thread_id, tenant_id limit <batch>
)"""

_IDLE = """<threads>, old as (
  select t.tenant_id, t.thread_id from threads t join candidates c using (tenant_id, thread_id)
  where not t.temporary and t.ttl_minutes is null and t.updated_at < now() - make_interval(days => $3) and <free>
  for update of t skip locked
)"""

_HISTORY = """<threads>, old as (
  select t.tenant_id, t.thread_id, t.head from threads t join candidates c using (tenant_id, thread_id)
  where not t.temporary and t.keep_minutes is null and t.updated_at < now() - make_interval(days => $3) and <free>
    and exists (
      select from checkpoints x
      where x.tenant_id = t.tenant_id and x.thread_id = t.thread_id and x.checkpoint_id <> t.head)
  for update of t skip locked
)"""

_SEEN = """
select (select count(*) from removed) as removed, count(*) as seen, max(place) as place from candidates
"""

_SEEN_ALONG = """
select (select count(*) from removed) as removed, count(*) as seen,
  (array_agg(row(at, thread_id, tenant_id) order by at desc, thread_id desc, tenant_id desc))[1] as place
from candidates
"""
"""``_SEEN`` for candidates along an index by time. Many rows may share a time, so the position is the whole key."""

_REMOVE = """
with <which>, ended as (
  delete from runs r using old o where r.tenant_id = o.tenant_id and r.thread_id = o.thread_id
  returning r.tenant_id, r.run_id
), no_steps as (
  delete from steps x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_intents as (
  delete from tool_intents x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_kept_intents as (
  delete from tool_intents x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
), no_events as (
  delete from events x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_items as (
  delete from checkpoint_items x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
), no_checkpoints as (
  delete from checkpoints x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
), removed as (
  delete from threads t using old o where t.tenant_id = o.tenant_id and t.thread_id = o.thread_id returning 1
)
<seen>"""

_LATEST = TO_LATEST.replace("with kept as (\n  <which>\n)", "with <which>, kept as (select * from old)").replace(
    "select from kept", ", removed as (select 1 from kept)\n<seen>"
)

_EVENTS = """
with candidates as (
  select tenant_id, run_id, ended_at, run_id || ' ' || tenant_id as place from runs
  where (run_id, tenant_id) > ($1::uuid, $2::uuid) and run_id < $4::uuid
  order by run_id, tenant_id limit <batch>
), removed as (
  delete from events e using candidates c
  where c.ended_at < now() - make_interval(hours => $3) and e.tenant_id = c.tenant_id and e.run_id = c.run_id
  returning 1
)
<seen>"""

_RUNS = """
with candidates as (
  select tenant_id, run_id, thread_id, ordinal, ended_at, run_id || ' ' || tenant_id as place from runs
  where (run_id, tenant_id) > ($1::uuid, $2::uuid) and run_id < $4::uuid
  order by run_id, tenant_id limit <batch>
), old as (
  select c.tenant_id, c.run_id, c.thread_id from candidates c join threads t using (tenant_id, thread_id)
  where c.ended_at < now() - make_interval(days => $3) and t.runs > c.ordinal
    and not exists (
      select from webhook_deliveries d where d.tenant_id = c.tenant_id and d.run_id = c.run_id and d.status = 'pending')
), no_steps as (
  delete from steps x using old o where x.tenant_id = o.tenant_id and x.run_id = o.run_id
), <intents>, no_events as (
  delete from events x using old o where x.tenant_id = o.tenant_id and x.run_id = o.run_id
), no_questions as (
  delete from questions q using old o
  where q.tenant_id = o.tenant_id and q.thread_id = o.thread_id and q.closed_by = o.run_id
), removed as (
  delete from runs r using old o where r.tenant_id = o.tenant_id and r.run_id = o.run_id returning 1
)
<seen>"""
"""The newest run of a thread stays, as it may have open questions. A closed question is deleted with the run that
answered it."""

DELETE_TRANSITIONS = """
with candidates as (
  select tenant_id, run_id, number, new_status, at, tenant_id || ' ' || run_id || ' ' || number as place
  from run_transitions where (tenant_id, run_id, number) > ($1::uuid, $2::uuid, $3::bigint)
  order by tenant_id, run_id, number limit <batch>
), old as (
  select tenant_id, run_id from candidates where new_status is null and at < now() - make_interval(days => $4)
), removed as (
  delete from run_transitions x using old o where x.tenant_id = o.tenant_id and x.run_id = o.run_id returning 1
)
select (select count(*) from removed) as removed, count(*) as seen,
  (array_agg(place order by tenant_id desc, run_id desc, number desc))[1] as place
from candidates
"""

_AUDIT = """
with candidates as (
  select tenant_id, entry_id, at, tenant_id || ' ' || entry_id as place from audit_log
  where (tenant_id, entry_id) > ($1::uuid, $2::uuid) order by tenant_id, entry_id limit <batch>
), removed as (
  delete from audit_log a using candidates c
  where c.at < now() - make_interval(days => $3) and a.tenant_id = c.tenant_id and a.entry_id = c.entry_id
  returning 1
)
<seen>"""

DELETE_USAGE = """
with recursive tenant as (
  (select tenant_id from usage_by_day order by tenant_id limit 1)
  union all
  select (select u.tenant_id from usage_by_day u where u.tenant_id > t.tenant_id order by u.tenant_id limit 1)
  from tenant t where t.tenant_id is not null
), old as (
  select u.tenant_id, u.day, u.agent, u.requested_by, u.model from tenant t cross join lateral (
    select * from usage_by_day d
    where d.tenant_id = t.tenant_id and d.day < (now() at time zone 'UTC')::date - $1::int limit <batch>) u
  limit <batch>
)
delete from usage_by_day u using old o
where (u.tenant_id, u.day, u.agent, u.requested_by, u.model) = (o.tenant_id, o.day, o.agent, o.requested_by, o.model)
"""
"""Deletes usage older than $1 days, in batches: two probes of the primary key for each tenant find it."""

LOCK_MARK = """
select place, done and started_at < now() - make_interval(secs => $2) as again
from retention_marks where name = $1 for update skip locked
"""

MOVE_MARK = """
update retention_marks set place = $2, done = $3, started_at = case when $4 then now() else started_at end
where name = $1
"""

SECONDS_AGO = "select now() - make_interval(secs => $1)"


def _filled(statement: str, seen: str = _SEEN, **parts: str) -> str:
    for name, part in {**parts, "threads": _ALL_THREADS, "free": UNUSED, "seen": seen}.items():
        statement = statement.replace(f"<{name}>", part)
    return statement


DELETE_TEMPORARY = _filled(_REMOVE, _SEEN_ALONG, which=_TEMPORARY)
DELETE_EXPIRED = _filled(_REMOVE, _SEEN_ALONG, which=_EXPIRED)
DELETE_IDLE = _filled(_REMOVE, which=_IDLE)
TRIM_RESTED = _filled(_LATEST, _SEEN_ALONG, which=_RESTED)
TRIM_IDLE = _filled(_LATEST, which=_HISTORY)
DELETE_EVENTS = _filled(_EVENTS)
DELETE_RUNS = _filled(_RUNS, intents=forget_tool_calls("old"))
DELETE_AUDIT = _filled(_AUDIT)


def with_batch(statement: str, size: int) -> str:
    """Return ``statement`` limited to ``size`` candidates."""
    return statement.replace("<batch>", str(size))
