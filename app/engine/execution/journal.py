"""The journal: commits the steps and ends of this process's runs, in groups (docs/decisions/0002)."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from app.base.errors import LeaseLost, Unavailable
from app.engine.entries import EndEntry, JournalEntry
from app.infra.db.engine import Database
from app.infra.db.group_commit import GroupCommitter
from app.infra.db.statement_tracing import query
from app.infra.telemetry.labels import CANCELLED
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, TraceRecorder

COMMIT = """
with entry as (
  select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::bigint[], $8::text[],
      $9::text[], $10::text[], $11::jsonb[], $12::jsonb[], $13::text[], $14::jsonb[], $15::jsonb[])
    with ordinality as e(tenant_id, thread_id, run_id, epoch, owner, head, last_number, status, reason, thread_status,
      error, interrupts, task, answered, usage, n)
), owned as (
  select e.* from entry e
  cross join lateral (
    select t.live_run from threads t
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
    head = case when o.last_number >= t.last_number then coalesce(o.head, t.head) else t.head end,
    last_number = greatest(t.last_number, o.last_number),
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
  from unnest($16::bigint[], $17::uuid[], $18::uuid[], $19::text[], $20::int[], $21::text[], $22::bytea[], $23::text[],
      $24::text[]) as c(n, checkpoint_id, parent_id, source, step, next, head, first_items, last_items)
  join owned o on o.n = c.n
  on conflict do nothing
), new_items as (
  insert into checkpoint_items (tenant_id, thread_id, number, body)
  select o.tenant_id, o.thread_id, i.number, i.body
  from unnest($25::bigint[], $26::bigint[], $27::bytea[]) as i(n, number, body) join owned o on o.n = i.n
  on conflict do nothing
), new_steps as (
  insert into steps (tenant_id, run_id, step, epoch, node, checkpoint_id, usage)
  select o.tenant_id, o.run_id, s.step, o.epoch, s.node, s.checkpoint_id, s.usage
  from unnest($28::bigint[], $29::int[], $30::text[], $31::uuid[], $32::jsonb[])
    as s(n, step, node, checkpoint_id, usage)
  join owned o on o.n = s.n
  on conflict do nothing
), new_intents as (
  insert into tool_intents (tenant_id, run_id, call_id, step, tool, tool_class, key, args)
  select o.tenant_id, o.run_id, i.call_id, i.step, i.tool, i.tool_class, i.key, i.args
  from unnest($33::bigint[], $34::text[], $35::int[], $36::text[], $37::text[], $38::text[], $39::bytea[])
    as i(n, call_id, step, tool, tool_class, key, args)
  join owned o on o.n = i.n
  on conflict do nothing
), new_events as (
  insert into events (tenant_id, run_id, epoch, seq, body)
  select o.tenant_id, o.run_id, o.epoch, e.seq, e.body
  from unnest($40::bigint[], $41::int[], $42::bytea[]) as e(n, seq, body) join owned o on o.n = e.n
  on conflict do nothing
)
select o.n, coalesce(m.queued, 0) as queued from owned o left join moved m on m.n = o.n
"""
"""One group. Arrays of arrays do not exist in SQL, so lists inside a row travel as joined text. A thread is locked
before its runs, here and everywhere, so that two never wait for each other. What a broken connection left on its way
may arrive after the step that came next: it moves no head back.

A plan is made once for a connection, perhaps while the tables are empty: then every index that begins with the tenant
looks as good as the primary key, and would be walked whole. ``is not distinct from`` compares the tenant without
offering it to an index. Only a running run has an owner; its status is not asked for, for the same reason."""

COMMIT_ASKING = COMMIT.replace(
    "\n)\nselect o.n,",
    """
), new_questions as (
  insert into questions (tenant_id, thread_id, question_id, run_id, key, kind, call_id, expects, others_only,
    requested_by)
  select o.tenant_id, o.thread_id, q.id, o.run_id, q.key, q.kind, q.call_id, q.expects, q.others_only, q.requested_by
  from unnest($43::bigint[], $44::jsonb[]) as a(n, asked)
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
"""The same for a group in which a run ends with questions: their rows too. One that is asked again is open again,
unless a run that brings its answer waits for its turn."""

assert COMMIT_ASKING != COMMIT, "questions would be lost"

_END = ("status", "reason", "thread_status", "error", "interrupts", "task", "answered", "usage")


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _parameters(entries: Sequence[JournalEntry]) -> list[list[Any]]:
    heads: list[tuple[Any, ...]] = []
    checkpoints: list[tuple[Any, ...]] = []
    items: list[tuple[Any, ...]] = []
    steps: list[tuple[Any, ...]] = []
    intents: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    for n, e in enumerate(entries, 1):
        fields = [None] * len(_END) if e.end is None else [getattr(e.end, name) for name in _END]
        heads.append((e.tenant_id, e.thread_id, e.run_id, e.epoch, e.owner, e.head, e.last_number, *fields))
        for c in e.checkpoints:
            ranges = (",".join(map(str, c.first_items)), ",".join(map(str, c.last_items)))
            checkpoints.append((n, c.checkpoint_id, c.parent_id, c.source, c.step, "\n".join(c.next), c.head, *ranges))
        items += [(n, number, body) for number, body in e.items]
        steps += [(n, s.step, s.node, s.checkpoint_id, s.usage) for s in e.steps]
        intents += [(n, i.call_id, i.step, i.tool, i.tool_class, i.key, i.args) for i in e.intents]
        events += [(n, seq, body) for seq, body in e.events]
    return [
        *_columns(heads, 15),
        *_columns(checkpoints, 9),
        *_columns(items, 3),
        *_columns(steps, 5),
        *_columns(intents, 7),
        *_columns(events, 3),
    ]


async def _commit(connection: asyncpg.Connection, entries: Sequence[JournalEntry]) -> list[int | None]:
    asking = [(n, e.end.questions) for n, e in enumerate(entries, 1) if e.end is not None and e.end.questions]
    if asking:
        rows = await connection.fetch(COMMIT_ASKING, *_parameters(entries), *_columns(asking, 2))
    else:
        rows = await connection.fetch(COMMIT, *_parameters(entries))
    queued: dict[int, int] = {row["n"]: row["queued"] for row in rows}
    return [queued.get(n) for n in range(1, len(entries) + 1)]


FOUND_DONE = """
select 1 from runs where tenant_id = $1 and run_id = $2 and epoch = $3 and status = $4 and reason = $5
"""
"""A run that ended so in an epoch was ended by its owner; another end was written in its place, after a cancel."""

COMMITTING = query("commit runs")

PAUSE = 0.2
"""Seconds between retries while the database is unavailable."""


AWAY = "Unavailable"
"""Trouble of an entry abandoned while the database was unavailable: counts against the service."""

VAIN_SECONDS = 5.0
"""A commit takes milliseconds. A writer cancelled after so long (usually as its lease expired) was waiting in vain."""


class CommitOutcome:
    """Outcome of a write: ``trouble`` is empty once it is durable."""

    trouble = CANCELLED


class Journal:
    """Commits what runs have done, in groups. Entries of one run keep their order.

    A broken connection leaves open whether its group was committed, so an entry is sent again until the answer is
    known: inserts of an entry are idempotent, and an end that is found committed was ours.
    """

    def __init__(self, database: Database, timeout: float, telling: TraceRecorder | None = None) -> None:
        self._meters, self._tracer = telling or TraceRecorder(Meters(), NO_TRACER)
        self._database = database
        self._timeout = timeout
        self._groups: GroupCommitter[JournalEntry, int | None] = GroupCommitter(
            "journal", database, _commit, key=lambda entry: entry.run_id, slots=2
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def write(self, entry: JournalEntry) -> int:
        """Commit ``entry``; return how many runs are queued for the thread.

        Raises ``LeaseLost`` if the run has another owner, or if the database is unavailable for ``timeout`` seconds, by
        which time the lease has expired.
        """
        started_at = time.monotonic()
        span = self._tracer.start(COMMITTING)
        outcome = CommitOutcome()
        try:
            return await self._write(entry, outcome)
        finally:
            took = time.monotonic() - started_at
            if outcome.trouble == CANCELLED and took > VAIN_SECONDS:
                outcome.trouble = AWAY
            self._meters.checkpoints.record(took, outcome.trouble)
            if span is not None:
                span.end(outcome.trouble)

    async def _write(self, entry: JournalEntry, outcome: CommitOutcome) -> int:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                queued = await self._groups.submit(entry)
            except Unavailable as error:
                outcome.trouble = AWAY
                if time.monotonic() > deadline:
                    raise LeaseLost("The database was unavailable for longer than the lease.") from error
                await asyncio.sleep(PAUSE)
                continue
            repeated = outcome.trouble == AWAY
            if queued is None and repeated and entry.end is not None and await self._is_committed(entry, entry.end):
                queued = 1  # perhaps none; claiming the thread's next run shows
            if queued is None:
                outcome.trouble = LeaseLost.__name__
                raise LeaseLost("The run has another owner.")
            outcome.trouble = ""
            return queued

    async def _is_committed(self, entry: JournalEntry, end: EndEntry) -> bool:
        what = (entry.tenant_id, entry.run_id, entry.epoch, end.status, end.reason)
        async with self._database.engine_connection() as connection:
            found = await connection.fetchval(FOUND_DONE, *what)
        return found is not None
