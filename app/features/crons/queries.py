"""SQL of crons: for requests, scoped to one tenant, and for the scheduler, over all tenants."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB

from app.features.crons.structs import CronSearch
from app.features.crons.tables import crons
from app.infra.db.session import Reader, ScopedStatement, Writer

_PUBLIC = [column for column in crons.c if column.name != "tenant_id"]

CLAIM_DUE = """
select tenant_id, cron_id, assistant_id, thread_id, schedule, timezone, end_time, on_run_completed, payload,
  metadata::text as metadata, next_run_date as slot
from crons
where next_run_date <= $1 and cron_id <> all($2::uuid[]) and tenant_id <> all($3::uuid[])
order by next_run_date
limit 1
for no key update skip locked
"""
"""Lock the first cron due at $1, except crons $2 and those of tenants $3."""

NEXT_DUE = """
select next_run_date from crons
where next_run_date is not null and cron_id <> all($1::uuid[]) and tenant_id <> all($2::uuid[])
order by next_run_date limit 1
"""

LOCK_THREAD = "select 1 from threads where tenant_id = $1 and thread_id = $2 for no key update skip locked"
"""Deleting a thread locks it and then its crons: waiting for the thread here could deadlock, so skip it."""

CLAIM_SLOT = """
insert into cron_slots (tenant_id, cron_id, slot) values ($1, $2, $3) on conflict do nothing returning 1
"""

RECORD_SLOT = """
with old as (
  delete from cron_slots where tenant_id = $1 and cron_id = $2 and slot < $3::timestamptz - interval '1 day'
)
update cron_slots set run_id = $4, problem = $5 where tenant_id = $1 and cron_id = $2 and slot = $3
"""

ADVANCE = "update crons set next_run_date = $3 where tenant_id = $1 and cron_id = $2"

PAUSE = "update crons set enabled = false, next_run_date = null where tenant_id = $1 and cron_id = $2"

MARK_THREAD = """
update threads set metadata = metadata || jsonb_build_object('cron_id', $3::text)
where tenant_id = $1 and thread_id = $2
"""


def _one(tenant_id: UUID, cron_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(crons.c.tenant_id == tenant_id, crons.c.cron_id == cron_id)


_HOLD_ASSISTANT = sa.text(
    "select 1 from assistants where tenant_id = :tenant and assistant_id = :assistant for key share"
)
_HOLD_THREAD = ScopedStatement(
    "select 1 from threads where tenant_id = :tenant and thread_id = :thread and not temporary<owned> for key share",
    "metadata @> cast(:owned as jsonb)",
)


async def hold_assistant(session: Writer, tenant_id: UUID, assistant_id: UUID) -> bool:
    """Lock an assistant against deletion until the transaction ends; return whether it exists."""
    return bool(await session.scalar(_HOLD_ASSISTANT, {"tenant": tenant_id, "assistant": assistant_id}))


async def hold_thread(session: Writer, tenant_id: UUID, thread_id: UUID) -> bool:
    """Lock a thread against deletion until the transaction ends; return whether it exists."""
    return bool(await session.scalar(_HOLD_THREAD, {"tenant": tenant_id, "thread": thread_id}))


_LOCK_QUOTA = sa.text("select pg_advisory_xact_lock(hashtextextended('crons of ' || cast(:tenant as text), 0))")
_BELOW_QUOTA = sa.text("select count(*) < :max from (select from crons where tenant_id = :tenant limit :max) c")


async def below_quota(session: Writer, tenant_id: UUID, max_crons: int) -> bool:
    """Return whether the tenant has fewer than ``max_crons``; other inserts wait until the transaction ends."""
    await session.all(_LOCK_QUOTA, {"tenant": str(tenant_id)})
    return bool(await session.scalar(_BELOW_QUOTA, {"tenant": tenant_id, "max": max_crons}))


async def add(session: Writer, tenant_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Insert a cron."""
    row = await session.first(sa.insert(crons).values(tenant_id=tenant_id, **values).returning(*_PUBLIC))
    assert row is not None
    return row


async def get(session: Reader, tenant_id: UUID, cron_id: UUID) -> Row[Any] | None:
    """Return a cron; None if missing or out of scope."""
    return await session.first(sa.select(*_PUBLIC).where(_one(tenant_id, cron_id), *session.within(crons.c.metadata)))


async def lock(session: Writer, tenant_id: UUID, cron_id: UUID) -> Row[Any] | None:
    """Return a cron, locked for update until the transaction ends."""
    statement = sa.select(*_PUBLIC).where(_one(tenant_id, cron_id), *session.within(crons.c.metadata))
    return await session.first(statement.with_for_update(key_share=True))


async def change(session: Writer, tenant_id: UUID, cron_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Update a locked cron."""
    row = await session.first(
        sa.update(crons).where(_one(tenant_id, cron_id)).values(**values, updated_at=sa.func.now()).returning(*_PUBLIC)
    )
    assert row is not None
    return row


async def delete(session: Writer, tenant_id: UUID, cron_id: UUID) -> int:
    """Delete a cron; return the number of deleted rows."""
    conditions = _one(tenant_id, cron_id), *session.within(crons.c.metadata)
    return await session.execute(sa.delete(crons).where(*conditions))


def _matching(
    session: Reader, tenant_id: UUID, wanted: CronSearch, assistant_id: UUID | None
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [crons.c.tenant_id == tenant_id]
    conditions += session.within(crons.c.metadata)
    if assistant_id is not None:
        conditions.append(crons.c.assistant_id == assistant_id)
    if wanted.thread_id is not None:
        conditions.append(crons.c.thread_id == wanted.thread_id)
    if wanted.enabled is not None:
        conditions.append(crons.c.enabled == wanted.enabled)
    if wanted.metadata:
        conditions.append(crons.c.metadata.op("@>")(sa.cast(wanted.metadata, JSONB)))
    return conditions


async def search(session: Reader, tenant_id: UUID, wanted: CronSearch, assistant_id: UUID | None) -> Sequence[Row[Any]]:
    """Return a page of crons, of one assistant or of all."""
    column = crons.c[wanted.sort_by or "created_at"]
    order = column.asc() if wanted.sort_order == "asc" else column.desc()
    return await session.all(
        sa.select(*_PUBLIC)
        .where(*_matching(session, tenant_id, wanted, assistant_id))
        .order_by(order.nulls_last(), crons.c.cron_id)
        .limit(wanted.limit)
        .offset(wanted.offset)
    )


async def count(session: Reader, tenant_id: UUID, wanted: CronSearch, assistant_id: UUID | None) -> int:
    """Count all matching crons."""
    matching = _matching(session, tenant_id, wanted, assistant_id)
    return int(await session.scalar(sa.select(sa.func.count()).select_from(crons).where(*matching)))
