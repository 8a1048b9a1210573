"""Retention: removes the rows of all tenants whose period has passed, for as long as anything is due.

Two ways to find them. Threads with a time of their own stand in an index by that time. All else is found by walks along
a primary key, whose place is kept in ``retention_marks``, so that the hot path pays for no index of its own: one batch
at a time, again from the start after ``SWEEP_INTERVAL_SECONDS``. Every statement is short, and each sweep is done by
one process at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from app.engine.checkpoints.sql import TO_LATEST
from app.engine.streams.postgres_transport import SWEEP
from app.infra.db.batches import in_batches, repeat_deletion
from app.infra.db.engine import Database
from app.infra.settings.storage import RetentionSettings
from app.security.idempotency.queries import PRUNE

BATCH = 200
"""Threads that one statement looks at."""
ROWS = 2000
"""Rows of other tables that one statement looks at."""

SWEEP_INTERVAL_SECONDS = 6 * 3600.0
"""A walk begins again after this time: what was not due when it passed may be by then."""
LATE_SECONDS = 900.0
"""How far behind the retention period the walk over event logs stays: runs that took longer are for the next walk."""
FULL_SECONDS = 600.0
"""How often all stateless runs are looked at, also those that a key or a webhook held back before."""

_FREE = """t.live_run is null and not exists (
  select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id and r.status = 'pending')"""

TEMPORARY = """
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
"""A run that was asked for with a key can be asked for again as long as the key is known."""

EXPIRED = """
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

RESTED = """
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
"""A run that waits may fork from any checkpoint, so nothing goes before it has had its turn."""

_ALL_THREADS = """
candidates as (
  select tenant_id, thread_id, thread_id || ' ' || tenant_id as place from threads
  where (thread_id, tenant_id) > ($1::uuid, $2::uuid)
  order by thread_id, tenant_id limit <batch>
)"""

IDLE = """<threads>, old as (
  select t.tenant_id, t.thread_id from threads t join candidates c using (tenant_id, thread_id)
  where not t.temporary and t.ttl_minutes is null and t.updated_at < now() - make_interval(days => $3) and <free>
  for update of t skip locked
)"""

HISTORY = """<threads>, old as (
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
"""As ``_SEEN``, for candidates along an index by time. Many rows may have one time, so the place is the whole key."""

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

EVENTS = """
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

RUNS = """
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
), no_intents as (
  delete from tool_intents x using old o
  where x.tenant_id = o.tenant_id and x.run_id = o.run_id and x.tool_class not in ('unsafe', 'reconcilable')
), kept_intents as (
  update tool_intents x set thread_id = o.thread_id
  from old o
  where x.tenant_id = o.tenant_id and x.run_id = o.run_id and x.tool_class in ('unsafe', 'reconcilable')
), no_events as (
  delete from events x using old o where x.tenant_id = o.tenant_id and x.run_id = o.run_id
), no_questions as (
  delete from questions q using old o
  where q.tenant_id = o.tenant_id and q.thread_id = o.thread_id and q.closed_by = o.run_id
), removed as (
  delete from runs r using old o where r.tenant_id = o.tenant_id and r.run_id = o.run_id returning 1
)
<seen>"""
"""The newest run of a thread stays: it may have asked something that is still open. A closed question goes with the run
that answered it. Calls that a fork must not repeat stay with the thread."""

TRANSITIONS = """
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

AUDIT = """
with candidates as (
  select tenant_id, entry_id, at, tenant_id || ' ' || entry_id as place from audit_log
  where (tenant_id, entry_id) > ($1::uuid, $2::uuid) order by tenant_id, entry_id limit <batch>
), removed as (
  delete from audit_log a using candidates c
  where c.at < now() - make_interval(days => $3) and a.tenant_id = c.tenant_id and a.entry_id = c.entry_id
  returning 1
)
<seen>"""

_MARK = """
select place, done and started_at < now() - make_interval(secs => $2) as again
from retention_marks where name = $1 for update skip locked
"""
_MOVE = """
update retention_marks set place = $2, done = $3, started_at = case when $4 then now() else started_at end
where name = $1
"""

FIRST = UUID(int=0)
LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class SweepBatch(NamedTuple):
    """What one statement did: rows removed, candidates seen, and the place of the last of them."""

    removed: int
    seen: int
    place: Any


class RetentionSweeper:
    """Sweeps the tables of all tenants. Each method removes all that is due, and returns how much that was."""

    def __init__(self, database: Database, retention: RetentionSettings = RetentionSettings()) -> None:
        self._database = database
        self._retention = retention
        self._turn = asyncio.Lock()
        self._full_at = -FULL_SECONDS

    def kinds(self, keep_seconds: float) -> dict[str, Callable[[], Awaitable[int]]]:
        """All sweeps by name, those alone that the settings ask for; stateless runs stay for ``keep_seconds``."""
        retention = self._retention
        wanted: dict[str, tuple[bool, Callable[[], Awaitable[int]]]] = {
            "temporary": (True, lambda: self.temporary(keep_seconds)),
            "expired": (True, self.expired),
            "rested": (True, self.rested),
            "keys": (True, self.keys),
            "frames": (True, self.frames),
            "events": (True, self.events),
            "transitions": (retention.transitions_days > 0, self.transitions),
            "audit": (retention.audit_days > 0, self.audit),
            "threads": (retention.threads_days > 0, self.threads),
            "history": (retention.history_days > 0, self.history),
            "runs": (retention.runs_days > 0, self.runs),
        }
        return {name: self._in_turn(sweep) for name, (is_wanted, sweep) in wanted.items() if is_wanted}

    def _in_turn(self, sweep: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        async def swept() -> int:
            async with self._turn:  # one connection of this process at a time
                return await sweep()

        return swept

    async def temporary(self, keep_seconds: float) -> int:
        """Remove threads of stateless runs that ended ``keep_seconds`` ago, with all that is on them."""
        since, now = LONG_AGO, time.monotonic()
        if now - self._full_at < FULL_SECONDS:
            async with self._database.engine_connection() as connection:
                since = await connection.fetchval(
                    "select now() - make_interval(secs => $1)", keep_seconds + FULL_SECONDS
                )
        else:
            self._full_at = now
        return await self._along_index("temporary", _REMOVE.replace("<which>", TEMPORARY), since, keep_seconds)

    async def expired(self) -> int:
        """Remove threads on which nothing has happened for as long as they may rest."""
        return await self._along_index("expired", _REMOVE.replace("<which>", EXPIRED), LONG_AGO)

    async def rested(self) -> int:
        """Take threads that have rested for long enough back to their newest checkpoint."""
        return await self._along_index("rested", _LATEST.replace("<which>", RESTED), LONG_AGO)

    async def keys(self) -> int:
        """Remove idempotency keys that have expired."""
        return await repeat_deletion(self._database, "keys", PRUNE)

    async def frames(self) -> int:
        """Remove frames on their way to other processes that are too old to be waited for."""
        return await repeat_deletion(self._database, "frames", SWEEP)

    async def events(self, before: UUID | None = None) -> int:
        """Remove the event logs of runs that ended long ago; of runs that are older than the id ``before``."""
        hours = self._retention.events_hours
        until = before or _id_at(time.time() - hours * 3600 - LATE_SECONDS)
        return await self._walk("events", EVENTS, ROWS, hours, until)

    async def runs(self, before: UUID | None = None) -> int:
        """Remove runs that ended long ago, but for the newest of each thread; the threads stay."""
        days = self._retention.runs_days
        return await self._walk("runs", RUNS, BATCH, days, before or _id_at(time.time() - days * 86_400))

    async def transitions(self) -> int:
        """Remove the transitions of runs that were removed long ago."""
        return await self._walk("transitions", TRANSITIONS, ROWS, self._retention.transitions_days)

    async def audit(self) -> int:
        """Remove old entries of the audit log."""
        return await self._walk("audit", AUDIT, ROWS, self._retention.audit_days)

    async def threads(self) -> int:
        """Remove threads without a TTL of their own on which nothing has happened for long."""
        return await self._walk("threads", _REMOVE.replace("<which>", IDLE), BATCH, self._retention.threads_days)

    async def history(self) -> int:
        """Remove all checkpoints but the newest of threads on which nothing has happened for long."""
        return await self._walk("history", _LATEST.replace("<which>", HISTORY), BATCH, self._retention.history_days)

    async def _along_index(self, name: str, statement: str, since: datetime, *parameters: object) -> int:
        statement = _complete(statement.replace("<seen>", _SEEN_ALONG), BATCH)
        place: tuple[object, ...] = (since, FIRST, FIRST)

        async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
            nonlocal place
            swept = await _swept(connection, statement, *place, *parameters)
            place = tuple(swept.place or place)
            return swept.removed, swept.seen == BATCH

        return await in_batches(self._database, name, batch)

    async def _walk(self, name: str, statement: str, size: int, *parameters: object) -> int:
        """Walk from the mark to the end; nothing while another process does, or when the walk was done lately."""
        statement = _complete(statement, size)
        width = 3 if name == "transitions" else 2

        async def batch(connection: asyncpg.Connection) -> tuple[int, bool]:
            mark = await connection.fetchrow(_MARK, name, SWEEP_INTERVAL_SECONDS)
            if mark is None:
                return 0, False
            begins = mark["again"] or not mark["place"]
            place = _place("" if mark["again"] else mark["place"], width)
            swept = await _swept(connection, statement, *place, *parameters)
            last = swept.place or ("" if begins else mark["place"])
            await connection.execute(_MOVE, name, last, swept.seen < size, begins)
            return swept.removed, swept.seen == size

        return await in_batches(self._database, name, batch)


def _complete(statement: str, size: int) -> str:
    """Fill in the parts that statements share, and how many candidates each looks at."""
    statement = statement.replace("<threads>", _ALL_THREADS).replace("<free>", _FREE).replace("<seen>", _SEEN)
    return statement.replace("<batch>", str(size))


async def _swept(connection: asyncpg.Connection, statement: str, *parameters: object) -> SweepBatch:
    row = await connection.fetchrow(statement, *parameters)
    assert row is not None
    return SweepBatch(row["removed"], row["seen"], row["place"])


def _place(text: str, width: int) -> list[object]:
    """The key after which a walk goes on: two ids, or two ids and a number."""
    if not text:
        return [FIRST, FIRST, 0][:width]
    first, second, *number = text.split(" ")
    return [UUID(first), UUID(second), *map(int, number)]


def _id_at(seconds: float) -> UUID:
    """The least id (UUIDv7) that is made at a moment of the clock."""
    return UUID(int=max(0, int(seconds * 1000)) << 80)
