"""SQL of execution: load a run's thread, commit its steps and its end."""

from app.engine.checkpoints.sql import COLUMNS, ITEMS

LOAD_CHECKPOINT = (
    f"select {COLUMNS} from checkpoints c {ITEMS} where c.tenant_id = $1 and c.thread_id = $2 and c.checkpoint_id = $3"
)

LOAD_REQUEST = "select request from runs where tenant_id = $1 and run_id = $2"

LOAD_RESUME_STATE = """
with root as (
  select coalesce(lineage, thread_id) as id, before from threads where tenant_id = $1 and thread_id = $2
), family as (
  select $2::uuid as thread_id union select id from root
  union select t.thread_id from threads t join root on t.lineage = root.id where t.tenant_id = $1
), named as (
  select jsonb_path_query(before, '$.interrupts.*[*].id') #>> '{}' as id from root
  union select question_id from questions where tenant_id = $1 and thread_id = $2 and closed_by = $3
), base as (
  select r.ordinal from checkpoints c join runs r on r.tenant_id = c.tenant_id and r.run_id = c.run_id
  where c.tenant_id = $1 and c.thread_id = $2 and c.checkpoint_id = $8
)
select true as is_call, i.call_id as id, i.key, r.run_id, r.thread_id, false as open, i.created_at
from family f
join runs r on r.tenant_id = $1 and r.thread_id = f.thread_id
join tool_intents i on i.tenant_id = r.tenant_id and i.run_id = r.run_id
  and ($5::text[] is null or i.call_id = any($5) or r.run_id = $3 or r.run_id >= $6)
where (r.run_id = $3 and $4) or (r.run_id <> $3 and (
    r.status in ('running', 'error', 'timeout')
    or r.reason in ('recovered', 'cut', 'handover', 'cancelled', 'superseded', 'review')
    or (i.tool_class in ('unsafe', 'reconcilable')
      and ((($7 or r.ordinal < (select ordinal from base)) and exists (select from jsonb_array_elements(r.interrupts)))
        or exists (select from steps s where s.tenant_id = $1 and s.run_id = r.run_id and s.step > i.step))
      and not exists (
        select from jsonb_array_elements(r.interrupts) as a(asked)
        left join questions q
          on q.tenant_id = $1 and q.thread_id = r.thread_id and q.question_id = a.asked->>'id'
        where q.kind is null or q.call_id in (i.call_id, left(i.call_id, -17))))))
union all
select true, i.call_id, i.key, i.run_id, i.thread_id, false, i.created_at
from family f join tool_intents i on i.tenant_id = $1 and i.thread_id = f.thread_id
where $5::text[] is null or i.call_id = any($5) or i.run_id >= $6
union all
select false, n.id, coalesce(q.key, n.id), q.closed_by, null, q.closed_at is null, null
from named n left join questions q on q.tenant_id = $1 and q.thread_id = $2 and q.question_id = n.id
order by 7 nulls first
"""
"""Unresolved calls, and the questions that were open when the run started, with those that it answers.

A call is unresolved if its owner died, if its run was stopped in the middle of a step, or (if it cannot be repeated)
if any run of the thread or its copies continued beyond it, or its run asked a person and is of another branch: this run
branches off ($7), or its base, the checkpoint $8, is of a later run. A run that only paused has made no call after its
last step. Not if the call still waits for an answer. Also if its run was deleted.
Limited to what the run may call again: the calls $5, those of this run, and those of runs from the id $6; without $5
all. An intent's id is its call's, or that with a blank and 16 digits (``call_questions.intent_id``).
"""

COMMIT = """
with entry as (
  select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::bigint[],
      $8::bigint[], $9::text[], $10::text[], $11::text[], $12::jsonb[], $13::jsonb[], $14::text[], $15::jsonb[],
      $16::jsonb[])
    with ordinality as e(tenant_id, thread_id, run_id, epoch, owner, head, last_number, last_value_number, status,
      reason, thread_status, error, interrupts, task, answered, usage, n)
), owned as (
  select e.*, e.last_number >= t.last_number and e.last_value_number >= t.last_value_number as newest from entry e
  cross join lateral (
    select t.live_run, t.last_number, t.last_value_number from threads t
    where t.thread_id = e.thread_id and t.tenant_id is not distinct from e.tenant_id and t.live_run = e.run_id
    for no key update
  ) t
  cross join lateral (
    select from runs r
    where r.run_id = t.live_run and r.tenant_id is not distinct from e.tenant_id
      and r.epoch = e.epoch and r.owner = e.owner
    for no key update
  ) r
), moved as (
  update threads t set
    head = case when o.newest then coalesce(o.head, t.head) else t.head end,
    last_number = greatest(t.last_number, o.last_number),
    last_value_number = greatest(t.last_value_number, o.last_value_number),
    status = coalesce(o.thread_status, t.status),
    error = case when o.status is null then t.error else o.error end,
    interrupts = case when o.status is null then t.interrupts
      when o.task is not null then jsonb_build_object(o.task, o.interrupts) end,
    answered = case when o.status is null then t.answered else o.answered end,
    live_run = case when o.status is null then t.live_run end,
    updated_at = now(),
    state_updated_at = case when o.head is null then t.state_updated_at else now() end
  from owned o
  where t.thread_id = o.thread_id and t.tenant_id is not distinct from o.tenant_id and t.live_run = o.run_id
  returning o.n, t.queued
), ended as (
  update runs r set
    status = o.status, reason = o.reason, error = o.error, interrupts = o.interrupts, usage = o.usage,
    owner = null, lease_until = null,
    checkpoint_id = coalesce(o.head, t.head), updated_at = now(), ended_at = now()
  from owned o join threads t on t.thread_id = o.thread_id and t.tenant_id is not distinct from o.tenant_id
  where o.status is not null and r.run_id = o.run_id and r.tenant_id is not distinct from o.tenant_id
), new_checkpoints as (
  insert into checkpoints
    (tenant_id, thread_id, checkpoint_id, parent_id, run_id, source, step, next, head, first_items, last_items)
  select o.tenant_id, o.thread_id, c.checkpoint_id, c.parent_id, o.run_id, c.source, c.step,
    string_to_array(c.next, E'\\n'), c.head, string_to_array(c.first_items, ',')::bigint[],
    string_to_array(c.last_items, ',')::bigint[]
  from unnest($17::bigint[], $18::uuid[], $19::uuid[], $20::text[], $21::int[], $22::text[], $23::bytea[], $24::text[],
      $25::text[]) as c(n, checkpoint_id, parent_id, source, step, next, head, first_items, last_items)
  join owned o on o.n = c.n
  on conflict do nothing
), new_items as (
  insert into checkpoint_items (tenant_id, thread_id, number, body)
  select o.tenant_id, o.thread_id, i.number, i.body
  from unnest($26::bigint[], $27::bigint[], $28::bytea[]) as i(n, number, body) join owned o on o.n = i.n
  on conflict do nothing
), new_steps as (
  insert into steps (tenant_id, run_id, step, epoch, node, checkpoint_id, usage)
  select o.tenant_id, o.run_id, s.step, o.epoch, s.node, s.checkpoint_id, s.usage
  from unnest($29::bigint[], $30::int[], $31::text[], $32::uuid[], $33::jsonb[])
    as s(n, step, node, checkpoint_id, usage)
  join owned o on o.n = s.n
  on conflict do nothing
), new_intents as (
  insert into tool_intents (tenant_id, run_id, call_id, step, tool, tool_class, key, args)
  select o.tenant_id, o.run_id, i.call_id, i.step, i.tool, i.tool_class, i.key, i.args
  from unnest($34::bigint[], $35::text[], $36::int[], $37::text[], $38::text[], $39::text[], $40::bytea[])
    as i(n, call_id, step, tool, tool_class, key, args)
  join owned o on o.n = i.n
  on conflict do nothing
), new_events as (
  insert into events (tenant_id, run_id, epoch, seq, body)
  select o.tenant_id, o.run_id, o.epoch, e.seq, e.body
  from unnest($41::bigint[], $42::int[], $43::bytea[]) as e(n, seq, body) join owned o on o.n = e.n
  on conflict do nothing
)
select o.n, coalesce(m.queued, 0) as queued from owned o left join moved m on m.n = o.n
"""
"""Commit one group of entries.

SQL has no arrays of arrays, so lists within a row are passed as joined text. A thread is locked before its runs, here
and everywhere, so that there are no deadlocks. Writes left in progress by a broken connection may arrive after the next
step; they do not move the head back.

Planner: a plan is made once per connection, perhaps while the tables are empty. Then every index that begins with the
tenant looks as good as the primary key and would be scanned whole. ``is not distinct from`` compares the tenant without
offering it to an index. A run's status is not compared for the same reason: only a running run has an owner.
"""

COMMIT_ASKING = COMMIT.replace(
    "\n)\nselect o.n,",
    """
), new_questions as (
  insert into questions (tenant_id, thread_id, question_id, run_id, key, kind, call_id, expects, others_only,
    requested_by)
  select o.tenant_id, o.thread_id, q.id, o.run_id, q.key, q.kind, q.call_id, q.expects, q.others_only, q.requested_by
  from unnest($44::bigint[], $45::jsonb[]) as a(n, asked)
  join owned o on o.n = a.n
  cross join lateral jsonb_to_recordset(a.asked)
    as q(id text, key text, kind text, call_id text, expects jsonb, others_only boolean, requested_by text)
  on conflict (tenant_id, thread_id, question_id) do update set closed_at = null, closed_by = null
  where questions.closed_at is not null and not exists (
    select from runs r where r.tenant_id = questions.tenant_id and r.run_id = questions.closed_by
      and r.status in ('pending', 'running'))
)
select o.n,""",
)
"""The same for a group in which a run ends with questions, with their rows.

A question asked again is reopened, unless a run that brings its answer is queued.
"""

COMMIT_AMENDING = COMMIT_ASKING.replace(
    "\n)\nselect o.n,",
    """
), amended as (
  update checkpoints c set
    head = a.head, first_items = string_to_array(a.first_items, ',')::bigint[],
    last_items = string_to_array(a.last_items, ',')::bigint[]
  from unnest($46::bigint[], $47::uuid[], $48::bytea[], $49::text[], $50::text[])
    as a(n, checkpoint_id, head, first_items, last_items)
  join owned o on o.n = a.n and o.newest
  where c.tenant_id = o.tenant_id and c.thread_id = o.thread_id and c.checkpoint_id = a.checkpoint_id
), dropped as (
  delete from checkpoint_items x using unnest($51::bigint[], $52::bigint[]) as d(n, number)
  join owned o on o.n = d.n and o.newest
  where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id and x.number = d.number
)
select o.n,""",
)
"""The same for a group in which a run amends its newest checkpoint, or takes its amendments back with their items.

A write that arrives late amends nothing.
"""

assert len({COMMIT, COMMIT_ASKING, COMMIT_AMENDING}) == 3, "questions or amendments would be lost"

HAS_ENDED = """
select 1 from runs where tenant_id = $1 and run_id = $2 and epoch = $3 and status = $4 and reason = $5
"""
"""Whether the run ended as given in this epoch: then by its owner. After a cancel, another end is written."""
