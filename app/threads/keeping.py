"""SQL of what is kept of threads: copies, prunings, lifetimes, sizes."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row

from app.base.ids import new_id
from app.db.session import Owned, Reader, Writer
from app.threads.queries import lock
from app.threads.structs import KEEP_LATEST, Ttl
from app.threads.tables import threads

encode = msgspec.json.Encoder().encode

_FREE = Owned(
    "select thread_id from threads where tenant_id = :tenant and thread_id = any(:threads) and not temporary"
    " and live_run is null and queued = 0<owned> for update",
    "metadata @> cast(:owned as jsonb)",
)


async def lock_free(session: Writer, tenant_id: UUID, thread_ids: Sequence[UUID]) -> list[UUID]:
    """Keep those of the threads that no run lives or waits on from changing until the transaction ends."""
    return [row.thread_id for row in await session.all(_FREE, {"tenant": tenant_id, "threads": list(thread_ids)})]


TO_LATEST = """
with kept as (
  <which>
), no_checkpoints as (
  delete from checkpoints x using kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and x.checkpoint_id <> k.head
), no_parents as (
  update checkpoints x set parent_id = null from kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and x.checkpoint_id = k.head
), no_items as (
  delete from checkpoint_items x using kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and not exists (
    select from checkpoints c, unnest(c.first_items, c.last_items) as r(first, last)
    where c.tenant_id = k.tenant_id and c.thread_id = k.thread_id and c.checkpoint_id = k.head
      and x.number between r.first and r.last)
)
select from kept
"""
"""Remove all checkpoints but the newest (``head``) of the threads ``<which>``, and what only the others name."""

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
