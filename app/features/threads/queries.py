"""SQL of threads, their states and their history.

SQL of what is kept of threads: copies, prunings, lifetimes, sizes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB

from app.base.ids import new_id
from app.base.offload import MAX_ANSWER_BYTES
from app.engine.checkpoints.entry import CheckpointEntry
from app.engine.checkpoints.snapshot import COLUMNS, ITEMS, STORED
from app.engine.checkpoints.sql import TO_LATEST
from app.engine.tables import checkpoint_items, checkpoints, threads
from app.features.threads.structs import KEEP_LATEST, ThreadSearch, Ttl
from app.infra.db.metadata import UUIDType
from app.infra.db.session import Reader, ScopedStatement, Writer

CREATE = """
insert into threads (tenant_id, thread_id, metadata)
select e.tenant_id, e.thread_id, e.metadata
from unnest($1::uuid[], $2::uuid[], $3::jsonb[]) as e(tenant_id, thread_id, metadata)
on conflict do nothing
returning tenant_id, thread_id, created_at
"""
"""Many new threads as one statement; those that come back were not there."""

_THREAD = """
    t.thread_id, t.created_at, t.updated_at, t.state_updated_at, t.metadata, t.status, t.config, t.error, t.interrupts,
    t.runs, t.last_number, t.ttl_minutes, t.keep_minutes
"""
_HEAD = f"""
left join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id = t.head {ITEMS}
"""

_OWN = "t.metadata @> cast(:owned as jsonb)"

_GET = ScopedStatement(
    f"select {_THREAD}, {COLUMNS} from threads t {_HEAD}"
    " where t.tenant_id = :tenant and t.thread_id = :thread and not t.temporary<owned>",
    _OWN,
)


async def get(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """A thread with its latest state, in one query."""
    return await session.first(_GET, {"tenant": tenant_id, "thread": thread_id})


async def merge_metadata(session: Writer, tenant_id: UUID, thread_id: UUID, metadata: dict[str, Any]) -> int:
    """Merge into a thread's metadata; how many threads it was."""
    return await session.execute(
        sa.update(threads)
        .where(
            threads.c.tenant_id == tenant_id,
            threads.c.thread_id == thread_id,
            ~threads.c.temporary,
            *session.within(threads.c.metadata),
        )
        .values(metadata=threads.c.metadata.op("||")(sa.cast(metadata, JSONB)), updated_at=sa.func.now())
    )


def _matching(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [threads.c.tenant_id == tenant_id, ~threads.c.temporary]
    conditions += session.within(threads.c.metadata)
    if wanted.metadata:
        conditions.append(threads.c.metadata.op("@>")(sa.cast(wanted.metadata, JSONB)))
    if wanted.status is not None:
        conditions.append(threads.c.status == wanted.status)
    if wanted.ids:
        # one array: a parameter for each would be compiled for each, which holds the loop
        conditions.append(threads.c.thread_id == sa.any_(sa.cast(wanted.ids, sa.ARRAY(UUIDType))))
    return conditions


_WITH_STATES = sa.text(
    f"select {_THREAD}, {COLUMNS} from threads t {_HEAD} where t.tenant_id = :tenant and t.thread_id = any(:ids)"
)


def _ordered(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> sa.Select[Any]:
    column = threads.c[wanted.sort_by or "created_at"]
    order = column.asc() if wanted.sort_order == "asc" else column.desc()
    matching = _matching(session, tenant_id, wanted)
    return sa.select(threads.c.thread_id).where(*matching).order_by(order, threads.c.thread_id)


async def search(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> list[Row[Any]]:
    """A page of threads with their latest states: one query for the page, one for its states (``states_within``)."""
    page = await session.all(_ordered(session, tenant_id, wanted).limit(wanted.limit).offset(wanted.offset))
    return await states_within(session, tenant_id, [row.thread_id for row in page])


async def candidates(session: Reader, tenant_id: UUID, wanted: ThreadSearch, limit: int) -> list[UUID]:
    """The first ``limit`` threads that match, but for their values."""
    return [row.thread_id for row in await session.all(_ordered(session, tenant_id, wanted).limit(limit))]


async def with_states(session: Reader, tenant_id: UUID, ids: list[UUID]) -> list[Row[Any]]:
    """The threads ``ids`` with their latest states, in this order."""
    rows = {row.thread_id: row for row in await session.all(_WITH_STATES, {"tenant": tenant_id, "ids": ids})}
    return [rows[thread_id] for thread_id in ids if thread_id in rows]


_STATES_WITHIN = sa.text(
    "with page as ("
    "  select c.*, wanted.place, t.thread_id as of_thread"
    "  from unnest(cast(:ids as uuid[])) with ordinality as wanted(thread_id, place)"
    "  join threads t on t.tenant_id = :tenant and t.thread_id = wanted.thread_id"
    "  left join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id = t.head"
    "), sized as ("
    "  select c.of_thread, c.place, row_number() over wanted as number,"
    "   sum(coalesce(octet_length(c.head), 0) + coalesce(s.stored, 0)) over wanted as stored"
    f"  from page c {STORED} window wanted as (order by c.place)"
    f") select {_THREAD}, {COLUMNS}, sized.place from sized"
    f" join threads t on t.tenant_id = :tenant and t.thread_id = sized.of_thread {_HEAD}"
    " where sized.number = 1 or sized.stored <= :stored order by sized.place"
)


async def states_within(session: Reader, tenant_id: UUID, ids: list[UUID]) -> list[Row[Any]]:
    """The first of the threads ``ids`` with their latest states, as many as take bounded bytes as stored.

    ``place`` in a row counts from 1. A thread that is no longer there has no row.
    """
    which = {"tenant": tenant_id, "ids": ids, "stored": MAX_ANSWER_BYTES}
    return list(await session.all(_STATES_WITHIN, which)) if ids else []


async def count(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> int:
    """How many threads match, on all pages."""
    matching = _matching(session, tenant_id, wanted)
    found = await session.scalar(sa.select(sa.func.count()).select_from(threads).where(*matching))
    return int(found)


_STATE = f"""
select t.error, t.interrupts, t.head is not distinct from c.checkpoint_id as latest, t.last_number, t.created_at,
  r.metadata as run_metadata, {COLUMNS}
from threads t
"""
_RUN = " left join runs r on r.tenant_id = c.tenant_id and r.run_id = c.run_id "
_WHERE = " where t.tenant_id = :tenant and t.thread_id = :thread<owned> "

_LATEST_STATE = ScopedStatement(_STATE + _HEAD + _RUN + _WHERE, _OWN)
_STATE_AT = ScopedStatement(
    _STATE
    + "left join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id"
    + f" and c.checkpoint_id = :checkpoint {ITEMS}"
    + _RUN
    + _WHERE,
    _OWN,
)
_HISTORY = ScopedStatement(
    "with page as ("
    "  select c.tenant_id, c.thread_id, c.checkpoint_id, c.head, c.first_items, c.last_items from threads t"
    "  join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id"
    + _RUN
    + _WHERE
    + "  and (cast(:before as uuid) is null or c.checkpoint_id < :before)"
    "  and (cast(:at as uuid) is null or c.checkpoint_id = :at)"
    "  and (cast(:metadata as jsonb) is null or"
    "   coalesce(r.metadata, '{}') || jsonb_build_object('source', c.source, 'step', c.step, 'run_id', c.run_id)"
    "   @> cast(:metadata as jsonb))"
    "  order by c.checkpoint_id desc limit :limit"
    "), sized as ("
    "  select c.checkpoint_id, row_number() over newest as place,"
    "   sum(octet_length(c.head) + coalesce(s.stored, 0)) over newest as stored"
    f"  from page c {STORED} window newest as (order by c.checkpoint_id desc)"
    ")"
    + _STATE.replace("select", "select (select count(*) from page) as matched,", 1)
    + " join sized on sized.place = 1 or sized.stored <= :stored"
    " join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id"
    f" and c.checkpoint_id = sized.checkpoint_id {ITEMS}"
    + _RUN
    + " where t.tenant_id = :tenant and t.thread_id = :thread order by c.checkpoint_id desc",
    _OWN,
)
"""The newest states of a page whose stored bytes together are not too many, and how many the page has (``matched``)."""


async def latest_state(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """A thread's latest state, in one query; a row without a checkpoint for a thread that has none."""
    return await session.first(_LATEST_STATE, {"tenant": tenant_id, "thread": thread_id})


async def state_at(session: Reader, tenant_id: UUID, thread_id: UUID, checkpoint_id: UUID) -> Row[Any] | None:
    """A thread's state at a checkpoint; a row without one when the thread has no such checkpoint."""
    return await session.first(_STATE_AT, {"tenant": tenant_id, "thread": thread_id, "checkpoint": checkpoint_id})


class HistoryRange(NamedTuple):
    """Which states of a history: before a checkpoint, or at one; ``metadata`` is a JSON object that theirs contain."""

    limit: int
    before: UUID | None = None
    at: UUID | None = None
    metadata: str | None = None


async def history(session: Reader, tenant_id: UUID, thread_id: UUID, span: HistoryRange) -> Sequence[Row[Any]]:
    """States of a thread, newest first, in one query; fewer than ``span.limit`` where they are large."""
    which = {"tenant": tenant_id, "thread": thread_id, "stored": MAX_ANSWER_BYTES, **span._asdict()}
    return await session.all(_HISTORY, which)


_LOCK = ScopedStatement(
    "select live_run, queued, metadata, interrupts, head, last_number from threads t"
    " where tenant_id = :tenant and thread_id = :thread and not temporary<owned> for update",
    _OWN,
)
_OF_RUNS = ("steps", "tool_intents", "events")
_OF_THREADS = ("runs", "tool_intents", "checkpoint_items", "checkpoints", "threads")


async def lock(session: Writer, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Keep others from changing the thread until the transaction ends."""
    return await session.first(_LOCK, {"tenant": tenant_id, "thread": thread_id})


async def delete(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> None:
    """Remove threads and everything on them; transitions stay."""
    which = {"tenant": tenant_id, "threads": list(thread_ids)}
    for name in _OF_RUNS:
        await session.execute(
            sa.text(
                f"delete from {name} x using runs r where x.tenant_id = :tenant and r.tenant_id = :tenant"
                " and r.thread_id = any(:threads) and x.run_id = r.run_id"
            ),
            which,
        )
    for name in _OF_THREADS:
        await session.execute(
            sa.text(f"delete from {name} where tenant_id = :tenant and thread_id = any(:threads)"), which
        )


_BASE = sa.text(
    f"select {COLUMNS}, (select s.node from steps s where s.tenant_id = c.tenant_id and s.run_id = c.run_id"
    " and s.checkpoint_id = c.checkpoint_id limit 1) as node"
    f" from checkpoints c {ITEMS}"
    " where c.tenant_id = :tenant and c.thread_id = :thread and c.checkpoint_id = :checkpoint"
)


async def base(session: Reader, tenant_id: UUID, thread_id: UUID, checkpoint_id: UUID) -> Row[Any] | None:
    """A checkpoint with its state, and the node that made it."""
    return await session.first(_BASE, {"tenant": tenant_id, "thread": thread_id, "checkpoint": checkpoint_id})


class NewCheckpoint(NamedTuple):
    """A checkpoint to write, the log items that are new in it, and the number of the thread's last item then."""

    entry: CheckpointEntry
    items: Sequence[tuple[int, bytes]]
    last_number: int


async def add_checkpoints(session: Writer, place: tuple[UUID, UUID], past: Sequence[NewCheckpoint]) -> None:
    """Write checkpoints, the last one as the newest of its thread (tenant, thread): three statements for all."""
    where = {"tenant_id": place[0], "thread_id": place[1]}
    rows = [{**where, "number": number, "body": body} for one in past for number, body in one.items]
    if rows:
        await session.execute(sa.insert(checkpoint_items), rows)
    heads = [{**where, **msgspec.structs.asdict(one.entry), "next": list(one.entry.next)} for one in past]
    await session.execute(sa.insert(checkpoints), heads)
    entry, last_number = past[-1].entry, past[-1].last_number
    await session.execute(
        sa.update(threads)
        .where(threads.c.tenant_id == place[0], threads.c.thread_id == place[1])
        .values(
            head=entry.checkpoint_id,
            last_number=last_number,
            status="interrupted" if entry.next else "idle",
            error=sa.null(),
            interrupts=sa.null(),
            answered=sa.null(),
            before=sa.null(),
            updated_at=sa.func.now(),
            state_updated_at=sa.func.now(),
        )
    )


encode = msgspec.json.Encoder().encode

_FREE = ScopedStatement(
    "select thread_id from threads where tenant_id = :tenant and thread_id = any(:threads) and not temporary"
    " and live_run is null and queued = 0<owned> for update",
    "metadata @> cast(:owned as jsonb)",
)


async def lock_idle(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> list[UUID]:
    """Keep those of the threads that no run lives or waits on from changing until the transaction ends."""
    return [row.thread_id for row in await session.all(_FREE, {"tenant": tenant_id, "threads": list(thread_ids)})]


_THESE = sa.text(
    TO_LATEST.replace(
        "<which>",
        "select tenant_id, thread_id, head from threads"
        " where tenant_id = :tenant and thread_id = any(:threads) and head is not null",
    )
)


async def keep_latest(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> None:
    """Remove all checkpoints of the threads but the newest, and what only the others name."""
    await session.execute(_THESE, {"tenant": tenant_id, "threads": list(thread_ids)})


_COPY = (
    """insert into threads (tenant_id, thread_id, metadata, config, status, error, interrupts, head, last_number, runs,
         ttl_minutes, keep_minutes, lineage)
       select tenant_id, :copy, metadata || cast(:metadata as jsonb), config,
         case when live_run is null then status else 'idle' end,
         error, cast(:interrupts as jsonb), head, last_number, runs, ttl_minutes, keep_minutes,
         coalesce(lineage, thread_id)
       from threads where tenant_id = :tenant and thread_id = :thread and not temporary""",
    """insert into checkpoints (tenant_id, thread_id, checkpoint_id, parent_id, run_id, source, step, next, head,
         first_items, last_items, metadata, created_at)
       select tenant_id, :copy, checkpoint_id, parent_id, run_id, source, step, next, head, first_items, last_items,
         metadata, created_at
       from checkpoints where tenant_id = :tenant and thread_id = :thread""",
    """insert into checkpoint_items (tenant_id, thread_id, number, body)
       select tenant_id, :copy, number, body from checkpoint_items where tenant_id = :tenant and thread_id = :thread""",
    """insert into questions (tenant_id, thread_id, question_id, run_id, key, kind, call_id, expects, others_only,
         requested_by)
       select :tenant, :copy, i.new, q.run_id, coalesce(q.key, i.old), q.kind, q.call_id, q.expects,
         coalesce(q.others_only, false), q.requested_by
       from jsonb_each_text(cast(:ids as jsonb)) as i(old, new)
       left join questions q on q.tenant_id = :tenant and q.thread_id = :thread and q.question_id = i.old""",
)


async def copy(session: Writer, tenant_id: UUID, thread_id: UUID, copy_id: UUID, metadata: str = "{}") -> bool:
    """Make the thread ``copy_id`` with the values and checkpoints of another; whether that one was there.

    ``metadata`` (JSON) is merged into that of the copy. What waits is asked there under ids of its own.
    """
    thread = await lock(session, tenant_id, thread_id)
    if thread is None:
        return False
    ids = {one["id"]: new_id().hex for many in (thread.interrupts or {}).values() for one in many}
    waiting = {
        task: [{**one, "id": ids[one["id"]]} for one in many] for task, many in (thread.interrupts or {}).items()
    }
    given = {
        "tenant": tenant_id,
        "thread": thread_id,
        "copy": copy_id,
        "metadata": metadata,
        "interrupts": encode(waiting).decode() if waiting else None,
        "ids": encode(ids).decode(),
    }
    for statement in map(sa.text, _COPY):
        await session.execute(statement, {name: given[name] for name in statement.compile().params})
    return True


async def set_ttl(session: Writer, tenant_id: UUID, thread_id: UUID, ttl: Ttl) -> int:
    """Let a thread, or its past, go once nothing has happened on it for so long; how many threads it was."""
    goes = ttl.strategy != KEEP_LATEST
    return await session.execute(
        sa.update(threads)
        .where(
            threads.c.tenant_id == tenant_id,
            threads.c.thread_id == thread_id,
            ~threads.c.temporary,
            *session.within(threads.c.metadata),
        )
        .values(
            ttl_minutes=ttl.ttl if goes else None,
            keep_minutes=None if goes else ttl.ttl,
            updated_at=sa.func.now(),
        )
    )


_HEADS = sa.text(
    "select head, pg_column_size(c.*) as bytes from checkpoints c where tenant_id = :tenant and thread_id = :thread"
)
_SIZES = sa.text(
    "select number, pg_column_size(i.*) as bytes from checkpoint_items i"
    " where tenant_id = :tenant and thread_id = :thread"
)


async def sizes(session: Reader, tenant_id: UUID, thread_id: UUID) -> tuple[Sequence[Row[Any]], Sequence[Row[Any]]]:
    """The heads of a thread's checkpoints with the bytes of their rows, and the bytes of its log items by number."""
    which = {"tenant": tenant_id, "thread": thread_id}
    return await session.all(_HEADS, which), await session.all(_SIZES, which)
