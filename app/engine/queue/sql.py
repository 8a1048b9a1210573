"""SQL of the run queue: accept, claim, renew, release (docs/decisions/0001). A thread has at most one live run.

For ``is not distinct from`` see ``app.engine.execution.sql.COMMIT``.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from app.engine.entries import LARGE_REQUEST, AcceptEntry, ClaimedRun
from app.engine.tables import runs
from app.infra.db.columns import select_list, sql_type, stored_fields

BEFORE = """
      jsonb_build_object('head', t.head, 'last_number', t.last_number, 'last_value_number', t.last_value_number,
        'status', t.status, 'error', t.error,
        'interrupts', t.interrupts, 'answered', t.answered)
""".strip()
"""The thread as a run finds it when it starts, restored by a rollback."""

ENDED_PAUSE = """
(t.before->>'ended_pause' = <run>::text and t.before->>'head' is not distinct from t.head::text)
""".strip()
"""Whether a run that has not started ended the pause of its thread ``t`` when it was accepted."""

_ACCEPT = """
with entry as (
  select * from unnest(<arrays>) with ordinality as e(<parameters>, n)
), known as (
  select e.*, e.delay = 0 and e.owner is not null as starts, a.graph_id, a.config, a.context,
    jsonb_build_object('graph_id', a.graph_id, 'assistant_id', a.assistant_id) as mark, a.metadata as assistant_metadata
  from entry e
  join assistants a on a.assistant_id = e.assistant_id and a.tenant_id = e.tenant_id
<closing>), born as (
  insert into threads (tenant_id, thread_id, metadata, status, live_run, runs, queued, temporary)
  select tenant_id, thread_id, <birth>, case when starts then 'busy' else 'idle' end,
    case when starts then run_id end, 1, (delay = 0 and not starts)::int, temporary
  from known where create_thread and not strict
  on conflict do nothing
  returning tenant_id, thread_id, head, last_number, last_value_number, runs as ordinal, metadata, live_run, answered
), turned as (
  update threads t set
    runs = t.runs + 1,
    queued = t.queued + case when k.delay > 0 or (k.starts and t.live_run is null and t.queued = 0) then 0 else 1 end,
    live_run = case when k.starts and t.live_run is null and t.queued = 0 then k.run_id else t.live_run end,
    status = case when k.starts and t.live_run is null and t.queued = 0 then 'busy'<rests> else t.status end,
    error = case when k.starts and t.live_run is null and t.queued = 0 then null else t.error end,
    interrupts = case when k.starts and t.live_run is null and t.queued = 0 then null else t.interrupts end,
    before = case when k.starts and t.live_run is null and t.queued = 0 then <before><pauses> else t.before end,
    metadata = case when t.metadata @> k.mark then t.metadata else t.metadata || k.mark end,
    updated_at = now()
  from known k<decided>
  where t.thread_id = k.thread_id and t.tenant_id is not distinct from k.tenant_id
    and not (k.multitask_strategy = 'reject' and (t.live_run is not null or t.queued > 0))<turned>
  returning t.tenant_id, t.thread_id, t.head, t.last_number, t.last_value_number, t.runs as ordinal, t.metadata,
    t.live_run, t.answered
), placed as (
  select * from born union all select * from turned
), made as (
  insert into runs (<stored>,
    ordinal, status, reason, epoch, attempts, lease_until, available_at, created_at, started_at)
  select <values>,
    p.ordinal, case when p.live_run = k.run_id then 'running' else 'pending' end,
    case when p.live_run = k.run_id then 'accepted' when k.delay > 0 then 'scheduled' else 'queued' end,
    (p.live_run is not distinct from k.run_id)::int, (p.live_run is not distinct from k.run_id)::int,
    case when p.live_run = k.run_id then now() + make_interval(secs => $<lease>) end,
    now() + make_interval(secs => k.delay), now(), case when p.live_run = k.run_id then now() end
  from placed p join known k on k.tenant_id = p.tenant_id and k.thread_id = p.thread_id
  returning tenant_id, run_id, metadata, ordinal, epoch, attempts, status, created_at
)
select e.n, k.graph_id as agent, k.config::text as assistant_config, k.context::text as assistant_context,
  p.head, p.last_number, p.last_value_number, p.live_run, p.answered::text as answered,
  m.ordinal, m.epoch, m.attempts as attempt,
  m.status, m.created_at, m.metadata::text as metadata, k.n is not null as has_assistant,
  case when m.run_id is null then
    (select true from threads t
     where t.thread_id = e.thread_id and t.tenant_id is not distinct from e.tenant_id<seen> limit 1)
  end as has_thread
from entry e
left join known k on k.n = e.n
left join placed p on p.tenant_id = e.tenant_id and p.thread_id = e.thread_id and k.n is not null
left join made m on m.tenant_id = e.tenant_id and m.run_id = e.run_id
"""

_CLOSING = """
), standing as (
  select k.n, k.tenant_id, k.thread_id, k.run_id, k.answering,
    case when t.live_run is null then t.interrupts
      when (t.before->>'answering')::boolean then t.before->'interrupts' end as asked,
    k.ends_pause and t.live_run is null and t.status = 'interrupted' and t.interrupts is null as paused
  from known k join threads t on t.thread_id = k.thread_id and t.tenant_id is not distinct from k.tenant_id
  where k.answering is not null and not (k.multitask_strategy = 'reject' and (t.live_run is not null or t.queued > 0))
    and (k.owned is null or t.metadata @> k.owned)
  for no key update of t
), closed as (
  insert into questions (tenant_id, thread_id, question_id, key, closed_at, closed_by)
  select s.tenant_id, s.thread_id, a.id, a.id, now(), s.run_id
  from standing s cross join lateral string_to_table(s.answering, ',') as a(id)
  where exists (select from jsonb_path_query(s.asked, '$.*[*].id') as waits where waits #>> '{}' = a.id)
  on conflict (tenant_id, thread_id, question_id) do update set closed_at = now(), closed_by = excluded.closed_by
  where questions.closed_at is null
  returning tenant_id, thread_id
), decided as materialized (
  select s.n, s.paused, s.paused or exists (
    select from closed c where c.tenant_id = s.tenant_id and c.thread_id = s.thread_id) as waits
  from standing s
""".lstrip("\n")
"""Close the questions that a run answers.

The thread is locked first, so that of two answers to one question the second sees the effect of the first. A live run
that brings an answer itself leaves the other questions open; any other leaves none. The thread's status closes a pause.
"""


def _filled(text: str, **parts: str) -> str:
    for name, part in parts.items():
        text = text.replace(f"<{name}>", part)
    return text


_NOT_STORED = {
    "create_thread": "bool",
    "delay": "float8",
    "strict": "bool",
    "owned": "jsonb",
    "stamped": "bool",
    "answering": "text",
    "ends_pause": "bool",
}
"""Types of the parameters that are no columns of ``runs``."""

_STORED = stored_fields(AcceptEntry, runs)
_VALUES = {
    "metadata": "k.assistant_metadata || p.metadata || k.mark || k.metadata",
    "owner": "case when p.live_run = k.run_id then k.owner end",
}
"""Columns that are not stored as given."""


class AcceptStatement(NamedTuple):
    """A statement, and the function that returns the parameters of an entry for it."""

    text: str
    parameters: Callable[[AcceptEntry], tuple[Any, ...]]


def _accept(*optional: str, **parts: str) -> AcceptStatement:
    """Build the statement for entries with the ``optional`` fields."""
    names = (*_STORED, "create_thread", "delay", "strict", *optional)
    types = [_NOT_STORED.get(name) or sql_type(runs.c[name]) for name in names]
    text = _filled(
        _ACCEPT,
        arrays=", ".join(f"${number}::{of}[]" for number, of in enumerate(types, 1)),
        parameters=", ".join(names),
        stored=", ".join(_STORED),
        values=", ".join(_VALUES.get(name, f"k.{name}") for name in _STORED),
        lease=str(len(names) + 1),
        **{"closing": "", "decided": "", "rests": "", "pauses": "", "before": BEFORE, **parts},
    )
    return AcceptStatement(text, operator.attrgetter(*names))


ACCEPT = _accept(birth="mark", turned="", seen="")

_BIRTH = "case when stamped then metadata || mark else mark end"
_REACH = "\n    and (k.owned is null or t.metadata @> k.owned)"
_SEEN = " and (e.owned is null or t.metadata @> e.owned)"

ACCEPT_OWNED = _accept("owned", "stamped", birth=_BIRTH, turned=_REACH, seen=_SEEN)
"""The same for callers that may only access threads with their own metadata; other threads count as missing."""

ACCEPT_ANSWERS = _accept(
    "owned",
    "stamped",
    "answering",
    "ends_pause",
    birth=_BIRTH,
    turned=_REACH + "\n    and (k.answering is null or not k.strict or d.waits)",
    seen=_SEEN,
    closing=_CLOSING,
    decided=" left join decided d on d.n = k.n",
    rests=" when d.paused then 'idle'",
    pauses=f"\n      when d.paused then {BEFORE} || jsonb_build_object('ended_pause', k.run_id)",
    before=f"{BEFORE} || jsonb_build_object('answering', k.answering is not null)",
)
"""The same for runs that bring answers: it closes the questions or, if strict, rejects the run.

A pause has no row to close; the thread records which of the queued runs has ended it.
"""

OWN_THREAD = "select true from threads where tenant_id = $1 and thread_id = $2 and metadata @> $3::jsonb"

_SUSPECT = "(r.reason = 'recovered' or r.reason = 'cut' and r.attempts > 1)"
"""A suspect: queued again because its process died, perhaps because of this run."""

_DUE_OF_ALL = """
with recursive tenant as (
  (select tenant_id from runs where status = 'pending' order by tenant_id limit 1)
  union all
  select (select r.tenant_id from runs r where r.status = 'pending' and r.tenant_id > t.tenant_id
          order by r.tenant_id limit 1)
  from tenant t where t.tenant_id is not null
), fair as (
  select w.tenant_id, w.run_id from tenant n cross join lateral (
    select r.tenant_id, r.run_id, r.available_at, row_number() over (order by r.available_at) as turn
    from runs r join threads t on t.thread_id = r.thread_id and t.tenant_id is not distinct from r.tenant_id
    where r.status = 'pending' and r.tenant_id = n.tenant_id and r.available_at <= now() and t.live_run is null
      and not <suspect>
    order by r.available_at limit $3
  ) w
  where n.tenant_id is not null
  order by w.turn, w.available_at limit $3
), due as (
  select r.tenant_id, r.run_id, r.thread_id
  from fair f join runs r on r.run_id = f.run_id and r.tenant_id is not distinct from f.tenant_id
  join threads t on t.thread_id = r.thread_id and t.tenant_id is not distinct from r.tenant_id
  where <free>
  for no key update of r, t skip locked
)
"""
"""Due runs round-robin by tenant, found by a loose index scan over tenants with pending runs."""

_DUE_OF_THREAD = """
with due as (
  select r.tenant_id, r.run_id, r.thread_id
  from runs r join threads t on t.thread_id = r.thread_id and t.tenant_id is not distinct from r.tenant_id
  where r.tenant_id = $3 and r.thread_id = $4 and <free> and not <suspect>
  limit 1
  for no key update of r, t skip locked
)
"""

_DUE_SUSPECT = """
with due as (
  select r.tenant_id, r.run_id, r.thread_id
  from runs r join threads t on t.thread_id = r.thread_id and t.tenant_id is not distinct from r.tenant_id
  where <free> and <suspect> and r.attempts - (r.reason = 'cut')::int <= $3
    and (r.last_owner is null or left(r.last_owner::text, 13) <> left($1::uuid::text, 13)
      or r.updated_at < now() - make_interval(secs => $4))
  order by r.attempts, r.available_at
  limit $5
  for no key update of r, t skip locked
)
"""
"""A suspect's last server leaves it to others for $4 seconds (owners of a server share a prefix). The last attempt of a
run that was handed over does not count, as its process lives."""

_FREE = """
r.status = 'pending' and r.available_at <= now() and t.live_run is null
    and not exists (
      select from runs earlier
      where earlier.tenant_id = r.tenant_id and earlier.thread_id = r.thread_id and earlier.status = 'pending'
        and earlier.ordinal < r.ordinal and earlier.available_at <= now())
""".strip()

_CLAIM = """
<due>, turned as (
  update threads t set live_run = d.run_id, status = 'busy', error = null, interrupts = null,
    queued = greatest(t.queued - case when r.reason = 'scheduled' then 0 else 1 end, 0), updated_at = now(),
    before = case when r.epoch > 0 then t.before else
      <before> || jsonb_build_object('answering', r.parent_id is not null)
        || case when <ended_pause> then '{"status": "interrupted"}'::jsonb else '{}' end end
  from due d join runs r on r.run_id = d.run_id and r.tenant_id is not distinct from d.tenant_id
  where t.thread_id = d.thread_id and t.tenant_id is not distinct from d.tenant_id and t.live_run is null
  returning t.tenant_id, t.thread_id, t.live_run, t.head, t.last_number, t.last_value_number, t.answered,
    r.reason as was
), claimed as (
  update runs r set
    status = 'running', reason = 'claimed', epoch = r.epoch + 1, owner = $1,
    attempts = r.attempts + case when r.reason in ('handover', 'cut') then 0 else 1 end,
    lease_until = now() + make_interval(secs => $2), updated_at = now(), started_at = coalesce(r.started_at, now())
  from turned t
  where r.run_id = t.live_run and r.tenant_id is not distinct from t.tenant_id
  returning <claimed>, r.attempts as attempt, octet_length(r.request) as request_bytes,
    t.head, t.last_number, t.last_value_number, t.answered::text as answered,
    t.was in ('recovered', 'cut') as crashed_mid_step,
    (t.was = 'recovered' or t.was = 'cut' and r.attempts > 1) as suspect
)
select c.*, coalesce(a.graph_id, '') as agent, coalesce(a.config, '{}')::text as assistant_config,
  coalesce(a.context, '{}')::text as assistant_context
from claimed c left join assistants a on a.tenant_id = c.tenant_id and a.assistant_id = c.assistant_id
"""
_REQUEST = f"case when octet_length(r.request) < {LARGE_REQUEST} then r.request else '' end"
_CLAIM = _filled(
    _CLAIM,
    claimed=select_list(runs, stored_fields(ClaimedRun, runs), "r", request=_REQUEST),
    before=BEFORE,
    ended_pause=ENDED_PAUSE.replace("<run>", "r.run_id"),
)

CLAIM = _filled(_CLAIM, due=_DUE_OF_ALL.strip(), free=_FREE, suspect=_SUSPECT)
"""Claim up to $3 runs for owner $1 and $2 seconds, except suspects (``app.engine.queue.quarantine``)."""

CLAIM_NEXT = _filled(_CLAIM, due=_DUE_OF_THREAD.strip(), free=_FREE, suspect=_SUSPECT)
"""Claim the next run of a thread."""

CLAIM_SUSPECT = _filled(_CLAIM, due=_DUE_SUSPECT.strip(), free=_FREE, suspect=_SUSPECT)
"""Claim up to $5 suspects of at most $3 attempts, fewest first, so that a bad run does not delay the others."""

HAS_SUSPECTS = "select exists (select from runs r where r.status = 'pending' and <suspect>)"
HAS_SUSPECTS = HAS_SUSPECTS.replace("<suspect>", _SUSPECT)

RESERVE_SUSPECT = """
with one as (
  select r.tenant_id, r.run_id from runs r
  where r.status = 'pending' and <suspect> and r.updated_at < now() - make_interval(secs => $2)
    and not exists (select from runs r where r.status = 'pending' and <suspect> and r.lease_until > now())
    and not exists (select from runs o where o.status = 'running' and o.attempts > 1 and o.lease_until > now()
      and o.updated_at > now() - make_interval(secs => $1))
  limit 1 for no key update skip locked
)
update runs r set lease_until = now() + make_interval(secs => $1)
from one where r.tenant_id = one.tenant_id and r.run_id = one.run_id
"""
RESERVE_SUSPECT = RESERVE_SUSPECT.replace("<suspect>", _SUSPECT)
"""Reserve one suspect queued for $2 seconds, for a busy process to make room; one at a time."""

ACQUIT = """
update runs set attempts = 1 where tenant_id = $1 and run_id = $2 and epoch = $3 and owner = $4 and status = 'running'
"""
"""Reset the attempts of a suspect that committed a step. Its transitions still record all deaths."""

RELEASE_EXPIRED = """
with lost as (
  select r.tenant_id, r.run_id, r.thread_id, r.attempts >= $1 or d.deaths >= $2 as poison,
    jsonb_build_object('error', 'PoisonError', 'message', case
      when r.attempts >= $1 then format(
        'The run was started %s times and its process died each time; it is not retried.', r.attempts)
      else format('The process of the run died %s times, after some of its steps; it is not retried.', d.deaths)
    end) as error
  from runs r join threads t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
  cross join lateral (
    select 1 + count(*) as deaths from run_transitions x
    where x.tenant_id = r.tenant_id and x.run_id = r.run_id and x.reason = 'recovered'
  ) d
  where r.status = 'running' and r.lease_until < now() and r.cancel is null
  limit 100 for no key update of t, r skip locked
), freed as (
  update threads t set live_run = null, updated_at = now(),
    status = case when l.poison then 'error' else 'idle' end, error = case when l.poison then l.error else t.error end,
    queued = t.queued + (not l.poison)::int
  from lost l where t.tenant_id = l.tenant_id and t.thread_id = l.thread_id and t.live_run = l.run_id
)
update runs r set owner = null, last_owner = r.owner, lease_until = null, updated_at = now(),
  status = case when l.poison then 'error' else 'pending' end,
  reason = case when l.poison then 'poison' else 'recovered' end,
  error = case when l.poison then l.error else r.error end,
  ended_at = case when l.poison then now() end
from lost l where r.tenant_id = l.tenant_id and r.run_id = l.run_id
"""
"""Requeue runs with expired leases, or end them after $1 attempts or $2 deaths, so that a run which kills its process
does not kill them all."""

HAND_OVER = """
with thread as (
  select tenant_id, thread_id, live_run from threads
  where tenant_id = $1 and thread_id = $5 and live_run = $2 for no key update
), freed as (
  update runs r set status = 'pending', reason = $6, owner = null, lease_until = null, updated_at = now(),
    last_owner = case when $6 = 'recovered' then r.owner end
  from thread t
  where r.tenant_id = t.tenant_id and r.run_id = t.live_run and r.epoch = $3 and r.owner = $4 and r.status = 'running'
    and r.cancel is null
  returning r.tenant_id, r.run_id, r.thread_id
)
update threads t set live_run = null, status = 'idle', queued = t.queued + 1, updated_at = now()
from freed f where t.tenant_id = f.tenant_id and t.thread_id = f.thread_id and t.live_run = f.run_id
"""
"""Release a run. A cancelled run is not released, as it is ended in place (``app.engine.queue.cancels``)."""

VOUCH = """
update runs set reason = 'cut', updated_at = now()
where tenant_id = $1 and run_id = $2 and epoch = $3 and last_owner = $4 and status = 'pending' and reason = 'recovered'
"""
"""Mark a recovered run as cut: its process lives, but could not reach the database when the lease expired."""

EXTEND = """
update runs set lease_until = now() + make_interval(secs => $2)
where status = 'running' and owner = $1 and lease_until > now() and run_id = any($3)
returning run_id, cancel
"""

QUEUE_DEPTH = """
select count(*) as depth, coalesce(extract(epoch from now() - min(available_at)), 0)::float8 as age
from (select available_at from runs where status = 'pending' and available_at <= now() limit $1) as due
"""

RUNNING = """
select count(*) filter (where lease_until < now() - make_interval(secs => $1)) as orphaned,
  coalesce(extract(epoch from now() - min(started_at)), 0)::float8 as age
from runs where status = 'running'
"""


def forget_tool_calls(runs: str) -> str:
    """Return the parts of a ``with`` that forget the tool calls of the deleted ``runs``.

    Calls that cannot be repeated stay with the thread: deleting a run does not undo their effects, so no fork may make
    them again.
    """
    return f"""no_intents as (
  delete from tool_intents x using {runs} d
  where x.tenant_id = d.tenant_id and x.run_id = d.run_id and x.tool_class not in ('unsafe', 'reconcilable')
), kept_intents as (
  update tool_intents x set thread_id = d.thread_id from {runs} d
  where x.tenant_id = d.tenant_id and x.run_id = d.run_id and x.tool_class in ('unsafe', 'reconcilable')
)"""
