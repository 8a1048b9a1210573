"""SQL of cancels: end, delete or roll back runs, and reopen the questions that they closed."""

from app.domain.state import FIRST_VALUE
from app.engine.queue.sql import ENDED_PAUSE, forget_tool_calls

GRACE_SECONDS = 1.5
"""How long an owner has to end a cancelled run, before another process may end it in its place."""

_UNRESPONSIVE = f"(r.lease_until < now() or r.updated_at < now() - interval '{GRACE_SECONDS} seconds')"
"""A live run's row changes only with a claim and with the first cancel."""

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
"""Pending runs to stop. One that never started has answered nothing: questions and pauses that it closed when it was
accepted are reopened."""

END_PENDING = (
    _PENDING
    + """
update runs r set status = 'interrupted', reason = $3, updated_at = now(), ended_at = now()
from waiting w where r.tenant_id = w.tenant_id and r.run_id = w.run_id
returning r.run_id
"""
)

DELETE_PENDING = (
    _PENDING
    + """
delete from runs r using waiting w where r.tenant_id = w.tenant_id and r.run_id = w.run_id returning r.run_id
"""
)

CANCEL_LIVE = """
update runs set cancel = $3, updated_at = case when cancel is null then now() else updated_at end
where tenant_id = $1 and status = 'running' and {which} returning run_id
"""

BY_ID = "run_id = any($2::uuid[])"

ON_THREAD = "thread_id = $2"

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
"""Lock threads before their runs, as everywhere, so that there are no deadlocks."""

_ROLL_BACK = """
with <deleted>, restored as (
  update threads t set
    head = (t.before->>'head')::uuid, status = coalesce(t.before->>'status', 'idle'),
    error = nullif(t.before->'error', 'null'), interrupts = nullif(t.before->'interrupts', 'null'),
    answered = nullif(t.before->'answered', 'null'), before = null, live_run = null,
    queued = <queued>, updated_at = now(), state_updated_at = now()
  from deleted g where t.tenant_id = g.tenant_id and t.thread_id = g.thread_id and <is_on>
  returning t.queued
), reopened as (
  update questions q set closed_at = null, closed_by = null
  from deleted g where q.tenant_id = g.tenant_id and q.thread_id = g.thread_id and q.closed_by = g.run_id
    and q.run_id is distinct from g.run_id
), no_questions as (
  delete from questions q using deleted g
  where q.tenant_id = g.tenant_id and q.thread_id = g.thread_id and q.run_id = g.run_id
), no_steps as (
  delete from steps x using deleted g where x.tenant_id = g.tenant_id and x.run_id = g.run_id
), <intents>, no_events as (
  delete from events x using deleted g where x.tenant_id = g.tenant_id and x.run_id = g.run_id
), no_items as (
  delete from checkpoint_items x
  using deleted g join threads t on t.tenant_id = g.tenant_id and t.thread_id = g.thread_id
  where x.tenant_id = g.tenant_id and x.thread_id = g.thread_id
    and x.number > case when x.number > 0 then coalesce((t.before->>'last_number')::bigint, 0)
      else <first_value> + coalesce((t.before->>'last_value_number')::bigint, t.last_value_number) end
    and not exists (
      select from checkpoints c, unnest(c.first_items, c.last_items) as n(first, last)
      where c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id = (t.before->>'head')::uuid
        and x.number between n.first and n.last)
), no_checkpoints as (
  delete from checkpoints x using deleted g
  where x.tenant_id = g.tenant_id and x.thread_id = g.thread_id and x.run_id = g.run_id
)
select queued from restored
"""
"""All parts see the thread as it was, and no two of them write the same row: which of the two counts depends on the
plan. The run may have amended the checkpoint it went on from, whose items stay."""

_DELETE_LIVE = """
thread as (
  select tenant_id, thread_id, live_run from threads
  where tenant_id = $1 and thread_id = $5 and live_run = $2 for no key update
), deleted as (
  delete from runs r using thread t where r.tenant_id = t.tenant_id and r.run_id = t.live_run and r.status = 'running'
    and (r.epoch = $3 and r.owner = $4 or $3::int is null and r.cancel = 'rollback' and <unresponsive>)
  returning r.tenant_id, r.run_id, r.thread_id
)
""".replace("<unresponsive>", _UNRESPONSIVE)

_DELETE_STARTED = """
deleted as (
  delete from runs r
  where r.tenant_id = $1 and r.status = 'pending' and r.epoch > 0 and <which>
  returning r.tenant_id, r.run_id, r.thread_id
)
"""


def _roll_back(deleted: str, queued: str, is_on: str) -> str:
    statement = _ROLL_BACK.replace("<deleted>", deleted.strip()).replace("<queued>", queued)
    statement = statement.replace("<is_on>", is_on).replace("<intents>", forget_tool_calls("deleted"))
    return statement.replace("<first_value>", f"({FIRST_VALUE})")


ROLL_BACK = _roll_back(_DELETE_LIVE, "t.queued", "t.live_run = g.run_id")
"""Roll back a live run: by its owner or, without an epoch, by any process after the grace period."""

ROLL_BACK_PENDING = _roll_back(_DELETE_STARTED, "greatest(t.queued - 1, 0)", "t.live_run is null")
"""Roll back queued runs that have run before. The caller has locked the thread, which has had no other run since."""

UNENFORCED = """
select tenant_id, run_id, thread_id, cancel from runs r
where status = 'running' and cancel is not null and <unresponsive>
""".replace("<unresponsive>", _UNRESPONSIVE)

END_UNENFORCED = """
with thread as (
  select tenant_id, thread_id, live_run, head from threads
  where tenant_id = $1 and thread_id = $4 and live_run = $2 for no key update
), ended as (
  update runs r set status = 'interrupted', reason = $3, owner = null, lease_until = null, checkpoint_id = t.head,
    updated_at = now(), ended_at = now()
  from thread t
  where r.tenant_id = t.tenant_id and r.run_id = t.live_run and r.status = 'running' and r.cancel is not null
    and <unresponsive>
  returning r.tenant_id, r.run_id, r.thread_id
)
update threads t set live_run = null, status = 'idle', updated_at = now()
from ended e where t.tenant_id = e.tenant_id and t.thread_id = e.thread_id and t.live_run = e.run_id
""".replace("<unresponsive>", _UNRESPONSIVE)
