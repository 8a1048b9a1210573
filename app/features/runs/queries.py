"""SQL of runs as clients see them, scoped to one tenant. The engine's SQL is in ``app.engine.queue.sql``."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row

from app.base.ids import first_id_at
from app.base.offload import MAX_ANSWER_BYTES
from app.domain.event_id import EventId
from app.engine.checkpoints.sql import COLUMNS, ITEMS
from app.engine.structs import SHOWN
from app.engine.tables import events, run_transitions, runs, steps, threads, tool_intents
from app.features.runs.sql import CHAINS, NEWEST_CHAINS
from app.features.runs.structs import RunSearch, RunSummary
from app.infra.db.columns import stored_fields
from app.infra.db.session import Reader, ScopedStatement, Writer
from app.security.idempotency.tables import idempotency_keys as keys

MAX_TRANSITIONS = 1000
"""Changes of a run that one answer has: a run that is retried at most a few times has about ten."""

_CLOCK_SKEW_MS = 600_000
_PUBLIC = (*(runs.c[name] for name in SHOWN), runs.c.request)

_THREAD_IN_SCOPE = """exists (select from threads own where own.tenant_id = runs.tenant_id
    and own.thread_id = runs.thread_id and own.metadata @> cast(:owned as jsonb))"""


def _of(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> list[sa.ColumnElement[bool]]:
    return [
        runs.c.tenant_id == tenant_id,
        runs.c.run_id == run_id,
        runs.c.thread_id == thread_id,
        *_thread_in_scope(session, tenant_id, thread_id),
    ]


def _thread_in_scope(session: Reader, tenant_id: UUID, thread_id: UUID) -> list[sa.ColumnElement[bool]]:
    """Return the condition that the session's metadata filter, if any, matches the thread."""
    scope = session.within(threads.c.metadata)
    if not scope:
        return []
    return [sa.exists().where(threads.c.tenant_id == tenant_id, threads.c.thread_id == thread_id, *scope)]


async def get(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Return the public columns of a run."""
    return await session.first(sa.select(*_PUBLIC).where(*_of(session, tenant_id, thread_id, run_id)))


async def transitions(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Sequence[Row[Any]]:
    """Return the first ``MAX_TRANSITIONS`` changes of a run, oldest first; none for an unknown run."""
    changed = run_transitions.c
    columns = (changed.at, changed.new_status.label("status"), changed.reason, changed.epoch.label("attempt"))
    of_run = runs.c.tenant_id == changed.tenant_id, runs.c.run_id == changed.run_id
    statement = sa.select(*columns).join(runs, sa.and_(*of_run)).where(*_of(session, tenant_id, thread_id, run_id))
    return await session.all(statement.order_by(changed.number).limit(MAX_TRANSITIONS))


async def list_page(
    session: Reader, tenant_id: UUID, thread_id: UUID, *, status: str | None, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """Return a page of a thread's runs, newest first, cut at ``MAX_ANSWER_BYTES``; ``matched`` is its uncut length."""
    of_thread = runs.c.tenant_id == tenant_id, runs.c.thread_id == thread_id
    statement = sa.select(*_PUBLIC).where(*of_thread, *_thread_in_scope(session, tenant_id, thread_id))
    if status is not None:
        statement = statement.where(runs.c.status == status)
    size = sa.func.octet_length(runs.c.request).label("size")
    page = statement.add_columns(runs.c.ordinal, size).order_by(runs.c.ordinal.desc()).limit(limit).offset(offset)
    page_columns = page.subquery()
    newest = page_columns.c.ordinal.desc()
    sized = sa.select(
        page_columns,
        sa.func.count().over().label("matched"),
        sa.func.row_number().over(order_by=newest).label("place"),
        sa.func.sum(page_columns.c.size).over(order_by=newest).label("total"),
    ).subquery()
    fits = sa.or_(sized.c.place == 1, sized.c.total <= MAX_ANSWER_BYTES)
    return await session.all(sa.select(sized).where(fits).order_by(sized.c.ordinal.desc()))


async def current(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Return a thread's run in progress or next in turn, else the newest but for scheduled ones; with its ordinal."""
    of_thread = runs.c.tenant_id == tenant_id, runs.c.thread_id == thread_id, runs.c.reason != "scheduled"
    live = sa.select(sa.func.min(runs.c.ordinal)).where(*of_thread, runs.c.status.in_(("pending", "running")))
    newest = sa.select(sa.func.max(runs.c.ordinal)).where(*of_thread)
    wanted = runs.c.ordinal == sa.func.coalesce(live.scalar_subquery(), newest.scalar_subquery())
    where = *of_thread[:2], wanted, *_thread_in_scope(session, tenant_id, thread_id)
    return await session.first(sa.select(*_PUBLIC, runs.c.ordinal).where(*where))


_FIRST_OF_CHAIN = ScopedStatement(
    """with recursive up as (
  select run_id, parent_id, ordinal from runs where tenant_id = :tenant and thread_id = :thread and run_id = :run<owned>
  union all
  select r.run_id, r.parent_id, r.ordinal from up u join runs r
    on r.tenant_id = :tenant and r.thread_id = :thread and r.run_id = u.parent_id and r.ordinal < u.ordinal)
select run_id from up order by ordinal limit 1""",
    _THREAD_IN_SCOPE,
)


async def first_of_chain(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Any:
    """Return the id of the run that began what ``run_id`` continues by answers; None if it is unknown."""
    return await session.scalar(_FIRST_OF_CHAIN, {"tenant": tenant_id, "thread": thread_id, "run": run_id})


_SUMMARY = tuple(runs.c[name] for name in stored_fields(RunSummary, runs))


async def search(session: Reader, tenant_id: UUID, wanted: RunSearch, assistant_id: UUID | None) -> Sequence[Row[Any]]:
    """Return a page of the runs of all threads, newest first.

    Ids grow with time, so the primary key has the order, but of all tenants. The planner must know the tenant, in a
    prepared statement too, to sort the runs of one with few. It prefers the key to an index, which costs each insert.
    """
    conditions = [runs.c.tenant_id == sa.literal(tenant_id, runs.c.tenant_id.type, literal_execute=True)]
    if wanted.status is not None:
        statuses = wanted.status if isinstance(wanted.status, list) else [wanted.status]
        conditions.append(runs.c.status.in_(statuses))
    if assistant_id is not None:
        conditions.append(runs.c.assistant_id == assistant_id)
    if wanted.thread_id is not None:
        conditions.append(runs.c.thread_id == wanted.thread_id)
    if wanted.metadata:
        conditions.append(runs.c.metadata.contains(wanted.metadata))
    if wanted.created_after is not None:
        conditions += [runs.c.run_id >= first_id_at(wanted.created_after), runs.c.created_at >= wanted.created_after]
    if wanted.before is not None:
        conditions.append(runs.c.run_id < wanted.before)
    if scope := session.within(threads.c.metadata):
        own = sa.exists().where(threads.c.tenant_id == tenant_id, threads.c.thread_id == runs.c.thread_id, *scope)
        conditions.append(own)
    page = sa.select(*_SUMMARY).where(*conditions).order_by(runs.c.run_id.desc()).limit(wanted.limit)
    return await session.all(page)


_CONTINUED = ScopedStatement(
    """
    with recursive chain as (
      select tenant_id, thread_id, run_id, ordinal, created_at as begun_at from runs
      where tenant_id = :tenant and thread_id = :thread and run_id = :run<owned>
      union all
      select r.tenant_id, r.thread_id, r.run_id, r.ordinal, c.begun_at from chain c join runs r
        on r.tenant_id = c.tenant_id and r.thread_id = c.thread_id and r.parent_id = c.run_id and r.ordinal > c.ordinal)
    select r.run_id, r.assistant_id, r.status, r.ordinal, c.begun_at, r.updated_at,
      (select jsonb_agg(i || jsonb_build_object('response_schema', q.expects) order by n)
       from jsonb_array_elements(r.interrupts) with ordinality as asked(i, n)
       left join questions q on q.tenant_id = r.tenant_id and q.thread_id = r.thread_id and q.question_id = i->>'id'
       where q.closed_at is null) as questions
    from chain c join runs r on r.tenant_id = c.tenant_id and r.thread_id = c.thread_id and r.run_id = c.run_id
    order by r.ordinal desc limit 1
    """,
    _THREAD_IN_SCOPE,
)


async def continued(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Return the newest of a run and the runs that answer questions of it, and of those; with its open questions.

    ``begun_at``: when the first of them was created. None for an unknown run.
    """
    return await session.first(_CONTINUED, {"tenant": tenant_id, "thread": thread_id, "run": run_id})


_LOG_EXPIRED = ScopedStatement(
    """
    select coalesce(ended_at < now() - make_interval(hours => :hours), false) as over from runs
    where tenant_id = :tenant and thread_id = :thread
      and (run_id = cast(:run as uuid) or ordinal = cast(:ordinal as int))<owned>
    """,
    _THREAD_IN_SCOPE,
)


async def log_expired(
    session: Reader,
    tenant_id: UUID,
    thread_id: UUID,
    hours: int,
    *,
    run_id: UUID | None = None,
    ordinal: int | None = None,
) -> bool | None:
    """Return whether a run of the thread ended more than ``hours`` ago, so that its event log may be deleted.

    None for an unknown run.
    """
    parameters = {"tenant": tenant_id, "thread": thread_id, "hours": hours, "run": run_id, "ordinal": ordinal}
    expired: bool | None = await session.scalar(_LOG_EXPIRED, parameters)
    return expired


_OPEN_QUESTIONS = ScopedStatement(
    """
    select t.head,
      (select jsonb_agg(jsonb_build_object('id', i->>'id', 'key', coalesce(q.key, i->>'id'), 'run_id', q.run_id,
          'call_id', q.call_id, 'value', i->'value', 'expects', q.expects,
          'others_only', coalesce(q.others_only, false), 'requested_by', q.requested_by,
          'kind', coalesce(q.kind, case i->'value'->>'type'
            when 'tool_approval' then 'approval' when 'tool_review' then 'review' else 'question' end)))
       from jsonb_path_query(case when t.live_run is null then t.interrupts
         when (t.before->>'answering')::boolean then t.before->'interrupts' end, '$.*[*]') as i
       left join questions q on q.tenant_id = t.tenant_id and q.thread_id = t.thread_id and q.question_id = i->>'id'
       where q.closed_at is null) as questions,
      (select r.run_id from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
       order by r.ordinal desc limit 1) as last_run,
      exists (select from checkpoints c
       where c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id = :fork) as forks
    from threads t where t.tenant_id = :tenant and t.thread_id = :thread and not t.temporary<owned>
    """,
    "t.metadata @> cast(:owned as jsonb)",
)


async def open_questions(session: Reader, tenant_id: UUID, thread_id: UUID, fork: UUID | None) -> Row[Any] | None:
    """Return a thread's open questions, its head, its newest run, and whether it has the checkpoint ``fork``."""
    return await session.first(_OPEN_QUESTIONS, {"tenant": tenant_id, "thread": thread_id, "fork": fork})


_RUN_COUNTS = ScopedStatement(
    """
    select t.runs,
      (select min(r.ordinal) from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
       and r.status in ('pending', 'running') and r.reason <> 'scheduled') as open
    from threads t where t.tenant_id = :tenant and t.thread_id = :thread<owned>
    """,
    "t.metadata @> cast(:owned as jsonb)",
)
_FIRST_STARTED = sa.text("""
    select run_id, ordinal from runs
    where tenant_id = :tenant and thread_id = :thread and ordinal >= :ordinal and started_at is not null
    order by ordinal limit 1
""")


async def run_counts(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Return a thread's number of ``runs`` and the ordinal of the first that has not ended (``open``)."""
    return await session.first(_RUN_COUNTS, {"tenant": tenant_id, "thread": thread_id})


async def ordinal_of(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> int | None:
    """Return the ordinal of a run in its thread, None if it is unknown."""
    ordinal: int | None = await session.scalar(
        sa.select(runs.c.ordinal).where(*_of(session, tenant_id, thread_id, run_id))
    )
    return ordinal


async def first_started(session: Reader, tenant_id: UUID, thread_id: UUID, ordinal: int) -> Row[Any] | None:
    """Return the first started run with this or a later ordinal."""
    return await session.first(_FIRST_STARTED, {"tenant": tenant_id, "thread": thread_id, "ordinal": ordinal})


_THREAD_EXISTS = ScopedStatement(
    "select 1 from threads where tenant_id = :tenant and thread_id = :thread<owned>",
    "metadata @> cast(:owned as jsonb)",
)


async def thread_exists(session: Reader, tenant_id: UUID, thread_id: UUID) -> bool:
    """Return whether the thread exists in the tenant and scope."""
    return await session.scalar(_THREAD_EXISTS, {"tenant": tenant_id, "thread": thread_id}) is not None


_FINAL_STATE = sa.text(
    "select r.thread_id, r.status, r.error, r.interrupts, t.last_number,"
    f" r.run_id as ended_run, r.epoch as last_epoch, {COLUMNS}"
    " from runs r join threads t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id"
    " left join checkpoints c on c.tenant_id = r.tenant_id and c.thread_id = r.thread_id"
    f" and c.checkpoint_id = r.checkpoint_id {ITEMS}"
    " where r.tenant_id = :tenant and r.run_id = :run and (cast(:thread as uuid) is null or r.thread_id = :thread)"
)


async def final_state(session: Reader, tenant_id: UUID, thread_id: UUID | None, run_id: UUID) -> Row[Any] | None:
    """Return a run's status, error and final state in one query."""
    return await session.first(_FINAL_STATE, {"tenant": tenant_id, "thread": thread_id, "run": run_id})


_STATUS = sa.text("""
    select thread_id, status, error, run_id as ended_run, epoch as last_epoch,
      convert_from(request, 'UTF8')::json->>'stream_mode' as stream_mode
    from runs where tenant_id = :tenant and run_id = :run
""")


async def status(session: Reader, tenant_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Return a run's status and stream modes (JSON); a subscriber has the row for as long as it is served."""
    return await session.first(_STATUS, {"tenant": tenant_id, "run": run_id})


def _before(run_id: UUID) -> UUID:
    """Return an id before those of the checkpoints of a run, so that statements skip the thread's older ones."""
    return UUID(int=max(run_id.int - (_CLOCK_SKEW_MS << 80), 0))  # ids begin with their time in milliseconds


_THREAD_OF = sa.text("select thread_id from runs where tenant_id = :tenant and run_id = :run")
_ENDED = ScopedStatement(
    """
    select r.thread_id, r.status, r.checkpoint_id, r.error, r.interrupts, r.metadata,
      (select t.head from threads t where t.tenant_id = r.tenant_id and t.thread_id = r.thread_id) as head,
      (select case when c.source = 'input' then c.checkpoint_id else c.parent_id end from checkpoints c
       where c.tenant_id = r.tenant_id and c.thread_id = r.thread_id and c.run_id = r.run_id
         and c.checkpoint_id > :since
       order by c.checkpoint_id limit 1) as first
    from runs r where r.tenant_id = :tenant and r.thread_id = :thread and r.run_id = :run<owned>
    """,
    _THREAD_IN_SCOPE.replace("runs.", "r."),
)


async def thread_of(session: Reader, tenant_id: UUID, run_id: UUID) -> UUID | None:
    """Return the thread of a run, which the caller may not have the right to read."""
    thread_id: UUID | None = await session.scalar(_THREAD_OF, {"tenant": tenant_id, "run": run_id})
    return thread_id


async def ended(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Return how a run ended, and its thread's head."""
    named = {"tenant": tenant_id, "thread": thread_id, "run": run_id, "since": _before(run_id)}
    return await session.first(_ENDED, named)


PAGE_ROWS = 256
PAGE_BYTES = 512 * 1024
"""Bounds of a page of the event log: rows, or bytes (the row that crosses the bound is included)."""

_LOG_PAGE = sa.text(f"""
    select epoch, seq, body from (
      select epoch, seq, body, sum(octet_length(body)) over (order by epoch, seq) - octet_length(body) as before
      from events
      where tenant_id = :tenant and run_id = :run and epoch >= :epoch and (epoch, seq) > (:epoch, :seq)
      order by epoch, seq limit {PAGE_ROWS}
    ) page where before < {PAGE_BYTES} order by epoch, seq
""")


async def log_page(session: Reader, tenant_id: UUID, run_id: UUID, after: EventId) -> Sequence[Row[Any]]:
    """Return a page of a run's event log after ``after``, in order: epoch, seq of the first frame, body."""
    named = {"tenant": tenant_id, "run": run_id, "epoch": after.epoch, "seq": after.seq}
    return await session.all(_LOG_PAGE, named)


def has_more(page: Collection[Row[Any]]) -> bool:
    """Return whether another page of the event log may follow ``page``."""
    return len(page) == PAGE_ROWS or sum(len(row.body) for row in page) >= PAGE_BYTES


MAX_SHOWN_STEPS = 10_000

_STEPS = sa.text(f"""
    select c.checkpoint_id, c.parent_id, c.source, c.step, c.next, c.created_at, s.node
    from checkpoints c left join steps s
      on s.tenant_id = c.tenant_id and s.run_id = c.run_id and s.checkpoint_id = c.checkpoint_id
    where c.tenant_id = :tenant and c.thread_id = :thread and c.run_id = :run and c.checkpoint_id > :since
    order by c.step, c.checkpoint_id limit {MAX_SHOWN_STEPS}
""")


async def run_steps(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> Sequence[Row[Any]]:
    """Return a run's checkpoints with the nodes that made them, in order, without their states."""
    named = {"tenant": tenant_id, "thread": thread_id, "run": run_id, "since": _before(run_id)}
    return await session.all(_STEPS, named)


_LAST_STEP = sa.text("""
    select coalesce(
      (select max(s.step) from steps s where s.tenant_id = :tenant and s.run_id = :run),
      (select max(c.step) from checkpoints c
       where c.tenant_id = :tenant and c.thread_id = :thread and c.run_id = :run))
""")


async def last_step(session: Reader, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> int | None:
    """Return the number of a run's last committed step, the input included; None if no step is committed."""
    step: int | None = await session.scalar(_LAST_STEP, {"tenant": tenant_id, "thread": thread_id, "run": run_id})
    return step


_CHECKPOINT = sa.text(
    f"select {COLUMNS} from checkpoints c {ITEMS}"
    " where c.tenant_id = :tenant and c.thread_id = :thread and c.checkpoint_id = :checkpoint"
)


async def checkpoint(session: Reader, tenant_id: UUID, thread_id: UUID, checkpoint_id: UUID) -> Row[Any] | None:
    """Return a checkpoint with its state in one query."""
    return await session.first(_CHECKPOINT, {"tenant": tenant_id, "thread": thread_id, "checkpoint": checkpoint_id})


_BEFORE_RUN = sa.text(f"""
    select {COLUMNS} from runs r
    join threads t on t.tenant_id = r.tenant_id and t.thread_id = r.thread_id
    left join lateral (
      select f.checkpoint_id, f.parent_id from checkpoints f
      where f.tenant_id = r.tenant_id and f.thread_id = r.thread_id and f.run_id = r.run_id and f.checkpoint_id > :since
      order by f.checkpoint_id limit 1
    ) f on true
    join checkpoints c on c.tenant_id = r.tenant_id and c.thread_id = r.thread_id and c.checkpoint_id =
      case when f.checkpoint_id is not null then f.parent_id else coalesce(
        cast(convert_from(r.request, 'UTF8')::jsonb->>'checkpoint_id' as uuid),
        case when t.live_run = r.run_id then cast(t.before->>'head' as uuid) else t.head end) end
    {ITEMS}
    where r.tenant_id = :tenant and r.run_id = :run
""")


async def before_run(session: Reader, tenant_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Return the checkpoint that a run started from, with its state in one query; None if there was none."""
    return await session.first(_BEFORE_RUN, {"tenant": tenant_id, "run": run_id, "since": _before(run_id)})


async def delete(session: Writer, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> bool:
    """Delete an ended run with its steps and events; return whether it existed.

    Its transitions and the thread's checkpoints stay, and so do tool calls that a fork must not repeat.
    """
    deleted = await session.execute(
        sa.delete(runs).where(*_of(session, tenant_id, thread_id, run_id), runs.c.status.not_in(("pending", "running")))
    )
    if deleted:
        for table in (steps, events):
            await session.execute(sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.run_id == run_id))
        of_run = tool_intents.c.tenant_id == tenant_id, tool_intents.c.run_id == run_id
        unrepeatable = tool_intents.c.tool_class.in_(("unsafe", "reconcilable"))
        await session.execute(sa.delete(tool_intents).where(*of_run, ~unrepeatable))
        await session.execute(sa.update(tool_intents).where(*of_run).values(thread_id=thread_id))
    return bool(deleted)


async def chains(session: Reader, tenant_id: UUID, first: Sequence[UUID], *, requests: bool) -> Sequence[Row[Any]]:
    """Return the runs ``first`` and those that continue them, in order; with their ``requests`` if wanted."""
    return await session.all(CHAINS, {"tenant": tenant_id, "first": list(first), "requests": requests})


async def newest_chains(session: Reader, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
    """Return the first and last runs of a page of chains, the last changed first.

    ``parameters``: ``tenant``, ``assistant``, ``thread``, ``statuses``, ``waiting``, ``since``, ``at`` and ``run`` (the
    cursor), ``limit``.
    """
    return await session.all(NEWEST_CHAINS, parameters)


async def forget_keys(session: Writer, tenant_id: UUID, thread_id: UUID, route: str, but: UUID | None) -> None:
    """Delete the idempotency keys of ``route`` that made runs of the thread, except that of the run ``but``."""
    made = keys.c.tenant_id == tenant_id, keys.c.thread_id == thread_id, keys.c.route == route
    await session.execute(sa.delete(keys).where(*made, keys.c.run_id.is_distinct_from(but)))
