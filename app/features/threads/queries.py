"""SQL of threads: rows, states, history, copies, pruning, TTL, sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB, insert

from app.base.ids import new_id
from app.base.offload import MAX_ANSWER_BYTES
from app.domain.state import State
from app.engine.checkpoints.entry import AmendedCheckpoint, CheckpointEntry
from app.engine.checkpoints.sql import COLUMNS, ITEMS, STORED, TO_LATEST, UNUSED
from app.engine.tables import checkpoint_items, checkpoints, threads
from app.features.threads.structs import KEEP_LATEST, Thread, ThreadSearch, Ttl
from app.infra.db.columns import stored_fields
from app.infra.db.metadata import UUIDType
from app.infra.db.session import Reader, ScopedStatement, Writer
from app.security.access.structs import MetadataFilter

CREATE = """
insert into threads (tenant_id, thread_id, metadata)
select e.tenant_id, e.thread_id, e.metadata
from unnest($1::uuid[], $2::uuid[], $3::jsonb[]) as e(tenant_id, thread_id, metadata)
on conflict do nothing
returning tenant_id, thread_id, created_at
"""
"""Create many threads in one statement; returns those whose id was free."""

_READ = (*stored_fields(Thread, threads), "runs", "last_number", "ttl_minutes", "keep_minutes")
_COLUMNS = ", ".join(f"t.{name}" for name in _READ)
_HEAD = f"""
left join checkpoints c on c.tenant_id = t.tenant_id and c.thread_id = t.thread_id and c.checkpoint_id = t.head {ITEMS}
"""

_OWN = "t.metadata @> cast(:owned as jsonb)"

_GET = ScopedStatement(
    f"select {_COLUMNS}, {COLUMNS} from threads t {_HEAD}"
    " where t.tenant_id = :tenant and t.thread_id = :thread and not t.temporary<owned>",
    _OWN,
)


async def get(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Return a thread with its latest state in one query."""
    return await session.first(_GET, {"tenant": tenant_id, "thread": thread_id})


async def merge_metadata(session: Writer, tenant_id: UUID, thread_id: UUID, metadata: dict[str, Any]) -> int:
    """Merge into a thread's metadata; return the number of changed rows."""
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
        # one array parameter: compiling a parameter for each id would block the event loop
        conditions.append(threads.c.thread_id == sa.any_(sa.cast(wanted.ids, sa.ARRAY(UUIDType))))
    return conditions


_WITH_STATES = sa.text(
    f"select {_COLUMNS}, {COLUMNS} from threads t {_HEAD} where t.tenant_id = :tenant and t.thread_id = any(:ids)"
)


def _ordered(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> sa.Select[Any]:
    column = threads.c[wanted.sort_by or "created_at"]
    order = column.asc() if wanted.sort_order == "asc" else column.desc()
    matching = _matching(session, tenant_id, wanted)
    return sa.select(threads.c.thread_id).where(*matching).order_by(order, threads.c.thread_id)


async def search(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> list[Row[Any]]:
    """Return a page of threads with their latest states in two queries (see ``states_within``)."""
    page = await session.all(_ordered(session, tenant_id, wanted).limit(wanted.limit).offset(wanted.offset))
    return await states_within(session, tenant_id, [row.thread_id for row in page])


async def candidates(session: Reader, tenant_id: UUID, wanted: ThreadSearch, limit: int) -> list[UUID]:
    """Return the first ``limit`` threads that match everything but ``wanted.values``."""
    return [row.thread_id for row in await session.all(_ordered(session, tenant_id, wanted).limit(limit))]


async def with_states(session: Reader, tenant_id: UUID, ids: list[UUID]) -> list[Row[Any]]:
    """Return the threads ``ids`` with their latest states, in this order."""
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
    f") select {_COLUMNS}, {COLUMNS}, sized.place from sized"
    f" join threads t on t.tenant_id = :tenant and t.thread_id = sized.of_thread {_HEAD}"
    " where sized.number = 1 or sized.stored <= :stored order by sized.place"
)


async def states_within(session: Reader, tenant_id: UUID, ids: list[UUID]) -> list[Row[Any]]:
    """Return the first of the threads ``ids`` with their latest states, up to ``MAX_ANSWER_BYTES`` as stored.

    ``place`` in a row counts from 1. A deleted thread has no row.
    """
    parameters = {"tenant": tenant_id, "ids": ids, "stored": MAX_ANSWER_BYTES}
    return list(await session.all(_STATES_WITHIN, parameters)) if ids else []


async def count(session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> int:
    """Count all matching threads."""
    matching = _matching(session, tenant_id, wanted)
    return int(await session.scalar(sa.select(sa.func.count()).select_from(threads).where(*matching)))


_STATE = f"""
select t.error, t.interrupts, t.head is not distinct from c.checkpoint_id as latest, t.last_number, t.created_at,
  t.thread_id as of_thread, t.metadata as thread_metadata, r.metadata as run_metadata, {COLUMNS}
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
"""A page of states cut at ``:stored`` bytes, newest first; ``matched`` is the page's uncut length."""


async def latest_state(session: Reader, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Return a thread's latest state in one query; the row's checkpoint is null if the thread has none."""
    return await session.first(_LATEST_STATE, {"tenant": tenant_id, "thread": thread_id})


async def state_at(session: Reader, tenant_id: UUID, thread_id: UUID, checkpoint_id: UUID) -> Row[Any] | None:
    """Return a thread's state at a checkpoint; the row's checkpoint is null if the thread does not have it."""
    return await session.first(_STATE_AT, {"tenant": tenant_id, "thread": thread_id, "checkpoint": checkpoint_id})


class HistoryRange(NamedTuple):
    """A range of a history: before a checkpoint or at one, with states whose metadata contain ``metadata`` (JSON)."""

    limit: int
    before: UUID | None = None
    at: UUID | None = None
    metadata: str | None = None


async def history(session: Reader, tenant_id: UUID, thread_id: UUID, span: HistoryRange) -> Sequence[Row[Any]]:
    """Return states of a thread in one query, newest first, cut at ``MAX_ANSWER_BYTES``."""
    parameters = {"tenant": tenant_id, "thread": thread_id, "stored": MAX_ANSWER_BYTES, **span._asdict()}
    return await session.all(_HISTORY, parameters)


_LOCK = ScopedStatement(
    "select live_run, queued, metadata, interrupts, head, last_number, last_value_number from threads t"
    " where tenant_id = :tenant and thread_id = :thread and not temporary<owned> for update",
    _OWN,
)
_TABLES_BY_RUN = ("steps", "tool_intents", "events")
_TABLES_BY_THREAD = ("runs", "tool_intents", "checkpoint_items", "checkpoints", "threads")


async def lock(session: Writer, tenant_id: UUID, thread_id: UUID) -> Row[Any] | None:
    """Lock the thread's row until the transaction ends; None if it does not exist."""
    return await session.first(_LOCK, {"tenant": tenant_id, "thread": thread_id})


async def delete(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> None:
    """Delete threads and everything on them, except run transitions."""
    parameters = {"tenant": tenant_id, "threads": list(thread_ids)}
    for name in _TABLES_BY_RUN:
        await session.execute(
            sa.text(
                f"delete from {name} x using runs r where x.tenant_id = :tenant and r.tenant_id = :tenant"
                " and r.thread_id = any(:threads) and x.run_id = r.run_id"
            ),
            parameters,
        )
    for name in _TABLES_BY_THREAD:
        await session.execute(
            sa.text(f"delete from {name} where tenant_id = :tenant and thread_id = any(:threads)"), parameters
        )


_BASE = sa.text(
    f"select {COLUMNS}, (select s.node from steps s where s.tenant_id = c.tenant_id and s.run_id = c.run_id"
    " and s.checkpoint_id = c.checkpoint_id limit 1) as node"
    f" from checkpoints c {ITEMS}"
    " where c.tenant_id = :tenant and c.thread_id = :thread and c.checkpoint_id = :checkpoint"
)


async def base(session: Reader, tenant_id: UUID, thread_id: UUID, checkpoint_id: UUID) -> Row[Any] | None:
    """Return a checkpoint with its state and the node that wrote it."""
    return await session.first(_BASE, {"tenant": tenant_id, "thread": thread_id, "checkpoint": checkpoint_id})


class NewCheckpoint(NamedTuple):
    """A checkpoint to write, its new log items, and the numbers of the thread's last items after it."""

    entry: CheckpointEntry
    items: Sequence[tuple[int, bytes]]
    numbers: dict[str, int]

    @classmethod
    def of(cls, entry: CheckpointEntry, items: Sequence[tuple[int, bytes]], state: State) -> "NewCheckpoint":
        """Return the checkpoint ``entry`` of ``state``."""
        return cls(entry, items, numbers_of(state))


def numbers_of(state: State) -> dict[str, int]:
    """Return the columns of a thread that number its log items."""
    return {"last_number": state.last_number, "last_value_number": state.last_value_number}


async def _add_items(session: Writer, thread: tuple[UUID, UUID], items: Sequence[tuple[int, bytes]]) -> None:
    owner = {"tenant_id": thread[0], "thread_id": thread[1]}
    rows = [{**owner, "number": number, "body": body} for number, body in items]
    if rows:
        await session.execute(sa.insert(checkpoint_items), rows)


async def add_checkpoints(
    session: Writer, thread: tuple[UUID, UUID], new: Sequence[NewCheckpoint], run_id: UUID | None = None
) -> None:
    """Write checkpoints of a thread (tenant, thread) in three statements; the last one becomes its head.

    ``run_id``: the run that made them, if one did.
    """
    owner = {"tenant_id": thread[0], "thread_id": thread[1], "run_id": run_id}
    await _add_items(session, thread, [item for one in new for item in one.items])
    heads = [{**owner, **msgspec.structs.asdict(one.entry), "next": list(one.entry.next)} for one in new]
    await session.execute(sa.insert(checkpoints), heads)
    entry = new[-1].entry
    await session.execute(
        sa.update(threads)
        .where(threads.c.tenant_id == thread[0], threads.c.thread_id == thread[1])
        .values(
            head=entry.checkpoint_id,
            **new[-1].numbers,
            status="interrupted" if entry.next else "idle",
            error=sa.null(),
            interrupts=sa.null(),
            answered=sa.null(),
            before=sa.null(),
            updated_at=sa.func.now(),
            state_updated_at=sa.func.now(),
        )
    )


async def create_thread(session: Writer, tenant_id: UUID, thread_id: UUID, metadata: dict[str, Any]) -> None:
    """Create a thread if it does not exist."""
    values = {"tenant_id": tenant_id, "thread_id": thread_id, "metadata": metadata}
    await session.execute(insert(threads).values(values).on_conflict_do_nothing())


async def amend(
    session: Writer,
    thread: tuple[UUID, UUID],
    amended: AmendedCheckpoint,
    items: Sequence[tuple[int, bytes]],
    state: State,
) -> None:
    """Give a checkpoint of a thread (tenant, thread) other values; ``items`` are new in the thread's log."""
    await _add_items(session, thread, items)
    at = checkpoints.c
    await session.execute(
        sa.update(checkpoints)
        .where(at.tenant_id == thread[0], at.thread_id == thread[1], at.checkpoint_id == amended.checkpoint_id)
        .values(head=amended.head, first_items=amended.first_items, last_items=amended.last_items)
    )
    await session.execute(
        sa.update(threads)
        .where(threads.c.tenant_id == thread[0], threads.c.thread_id == thread[1])
        .values(**numbers_of(state))
    )


_IDLE_OF_RUNS = ScopedStatement(
    f"select thread_id from threads t where tenant_id = :tenant and {UNUSED} and not temporary"
    " and exists (select from checkpoints c where c.tenant_id = t.tenant_id and c.thread_id = t.thread_id"
    " and c.run_id = any(:runs))<owned> order by thread_id for update",
    "metadata @> cast(:owned as jsonb)",
)
_DELETE_OF_RUNS = (
    """with deleted as (
         delete from checkpoints where tenant_id = :tenant and thread_id = any(:threads) and run_id = any(:runs)
         returning checkpoint_id
       )
       update checkpoints c set parent_id = null from deleted d
       where c.tenant_id = :tenant and c.thread_id = any(:threads) and c.parent_id = d.checkpoint_id
         and (c.run_id is null or c.run_id <> all(:runs))""",  # a row that is updated here is not deleted
    """update threads t set head = (
         select c.checkpoint_id from checkpoints c where c.tenant_id = t.tenant_id and c.thread_id = t.thread_id
         order by c.checkpoint_id desc limit 1)
       where t.tenant_id = :tenant and t.thread_id = any(:threads)""",
    """delete from checkpoint_items i where i.tenant_id = :tenant and i.thread_id = any(:threads) and not exists (
         select from checkpoints c, unnest(c.first_items, c.last_items) as r(first, last)
         where c.tenant_id = i.tenant_id and c.thread_id = i.thread_id and i.number between r.first and r.last)""",
)


async def delete_checkpoints_of(session: Writer, tenant_id: UUID, runs: Sequence[UUID]) -> None:
    """Delete the checkpoints that ``runs`` made on threads without a live or pending run, and items of them alone."""
    given = {"tenant": tenant_id, "runs": list(runs)}
    given["threads"] = [row.thread_id for row in await session.all(_IDLE_OF_RUNS, given)]
    for statement in map(sa.text, _DELETE_OF_RUNS):
        await session.execute(statement, {name: given[name] for name in statement.compile().params})


encode = msgspec.json.Encoder().encode

_EXISTING_TEXT = (
    "select thread_id from threads t where tenant_id = :tenant and thread_id = any(:threads) and not temporary<owned>"
)
_EXISTING = ScopedStatement(_EXISTING_TEXT, "metadata @> cast(:owned as jsonb)")
_LOCK_IDLE = ScopedStatement(
    f"{_EXISTING_TEXT} and {UNUSED} order by thread_id for update",
    "metadata @> cast(:owned as jsonb)",
)

ThreadsByFilter = Mapping[MetadataFilter, Sequence[UUID]]
"""Ids of threads by the filter that their metadata must match."""


async def _of_all(
    session: Reader, statement: ScopedStatement, tenant_id: UUID, by_filter: ThreadsByFilter
) -> list[UUID]:
    found: list[UUID] = []
    for owned, thread_ids in by_filter.items():
        session.owned = owned
        rows = await session.all(statement, {"tenant": tenant_id, "threads": list(thread_ids)})
        found += [row.thread_id for row in rows]
    return found


async def lock_idle(session: Writer, tenant_id: UUID, by_filter: ThreadsByFilter) -> list[UUID]:
    """Lock those of the threads that have no live or pending run and match their filters; return their ids."""
    if len(by_filter) > 1:  # all in one order first, as others lock them
        await _of_all(session, _LOCK_IDLE, tenant_id, {None: [one for ids in by_filter.values() for one in ids]})
    return await _of_all(session, _LOCK_IDLE, tenant_id, by_filter)


async def existing(session: Reader, tenant_id: UUID, by_filter: ThreadsByFilter) -> list[UUID]:
    """Return those of the threads that exist and match their filters."""
    return await _of_all(session, _EXISTING, tenant_id, by_filter)


_KEEP_LATEST = sa.text(
    TO_LATEST.replace(
        "<which>",
        "select tenant_id, thread_id, head from threads"
        " where tenant_id = :tenant and thread_id = any(:threads) and head is not null",
    )
)


async def keep_latest(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> None:
    """Delete all checkpoints of the threads but the newest, and the log items that only the others use."""
    await session.execute(_KEEP_LATEST, {"tenant": tenant_id, "threads": list(thread_ids)})


_COPY = (
    """insert into threads (tenant_id, thread_id, metadata, config, status, error, interrupts, head, last_number,
         last_value_number, runs, ttl_minutes, keep_minutes, lineage)
       select tenant_id, :copy, metadata || cast(:metadata as jsonb), config,
         case when live_run is null then status else 'idle' end,
         error, cast(:interrupts as jsonb), head, last_number, last_value_number, runs, ttl_minutes, keep_minutes,
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
    """Create the thread ``copy_id`` with the values and checkpoints of another; return False if that is missing.

    ``metadata`` (JSON) is merged into the copy's. Open interrupts get new ids in the copy.
    """
    thread = await lock(session, tenant_id, thread_id)
    if thread is None:
        return False
    ids = {one["id"]: new_id().hex for many in (thread.interrupts or {}).values() for one in many}
    waiting = {
        task: [{**one, "id": ids[one["id"]]} for one in many] for task, many in (thread.interrupts or {}).items()
    }
    parameters = {
        "tenant": tenant_id,
        "thread": thread_id,
        "copy": copy_id,
        "metadata": metadata,
        "interrupts": encode(waiting).decode() if waiting else None,
        "ids": encode(ids).decode(),
    }
    for statement in map(sa.text, _COPY):
        await session.execute(statement, {name: parameters[name] for name in statement.compile().params})
    return True


async def set_ttl(session: Writer, tenant_id: UUID, thread_id: UUID, ttl: Ttl) -> int:
    """Set the TTL of a thread, or of its older checkpoints; return the number of changed rows."""
    deletes = ttl.strategy != KEEP_LATEST
    return await session.execute(
        sa.update(threads)
        .where(
            threads.c.tenant_id == tenant_id,
            threads.c.thread_id == thread_id,
            ~threads.c.temporary,
            *session.within(threads.c.metadata),
        )
        .values(
            ttl_minutes=ttl.ttl if deletes else None,
            keep_minutes=None if deletes else ttl.ttl,
            updated_at=sa.func.now(),
        )
    )


_HEAD_SIZES = sa.text(
    "select head, pg_column_size(c.*) as bytes from checkpoints c where tenant_id = :tenant and thread_id = :thread"
)
_ITEM_SIZES = sa.text(
    "select number, pg_column_size(i.*) as bytes from checkpoint_items i"
    " where tenant_id = :tenant and thread_id = :thread"
)


async def sizes(session: Reader, tenant_id: UUID, thread_id: UUID) -> tuple[Sequence[Row[Any]], Sequence[Row[Any]]]:
    """Return the heads of a thread's checkpoints with their row sizes, and the sizes of its log items by number."""
    parameters = {"tenant": tenant_id, "thread": thread_id}
    return await session.all(_HEAD_SIZES, parameters), await session.all(_ITEM_SIZES, parameters)
