"""SQL of crons, for requests: as one tenant. What makes their runs is in ``scheduler``."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB

from app.features.crons.structs import CronSearch
from app.features.crons.tables import crons
from app.infra.db.session import Reader, ScopedStatement, Writer

_SHOWN = [column for column in crons.c if column.name != "tenant_id"]


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
    """Keep an assistant from being deleted until the transaction ends; whether it is there."""
    return bool(await session.scalar(_HOLD_ASSISTANT, {"tenant": tenant_id, "assistant": assistant_id}))


async def hold_thread(session: Writer, tenant_id: UUID, thread_id: UUID) -> bool:
    """Keep a thread from being deleted until the transaction ends; whether it is there."""
    return bool(await session.scalar(_HOLD_THREAD, {"tenant": tenant_id, "thread": thread_id}))


_TURN = sa.text("select pg_advisory_xact_lock(hashtextextended('crons of ' || cast(:tenant as text), 0))")
_ROOM = sa.text("select count(*) < :most from (select from crons where tenant_id = :tenant limit :most) c")


async def has_room(session: Writer, tenant_id: UUID, most: int) -> bool:
    """Whether the tenant has fewer than ``most`` crons; until the transaction ends nobody else adds one."""
    await session.all(_TURN, {"tenant": str(tenant_id)})
    return bool(await session.scalar(_ROOM, {"tenant": tenant_id, "most": most}))


async def add(session: Writer, tenant_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Store a cron."""
    row = await session.first(sa.insert(crons).values(tenant_id=tenant_id, **values).returning(*_SHOWN))
    assert row is not None
    return row


async def get(session: Reader, tenant_id: UUID, cron_id: UUID) -> Row[Any] | None:
    """One cron."""
    return await session.first(sa.select(*_SHOWN).where(_one(tenant_id, cron_id), *session.within(crons.c.metadata)))


async def lock(session: Writer, tenant_id: UUID, cron_id: UUID) -> Row[Any] | None:
    """One cron, which nobody else changes until the transaction ends."""
    which = sa.select(*_SHOWN).where(_one(tenant_id, cron_id), *session.within(crons.c.metadata))
    return await session.first(which.with_for_update(key_share=True))


async def change(session: Writer, tenant_id: UUID, cron_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Change a cron that is locked."""
    row = await session.first(
        sa.update(crons).where(_one(tenant_id, cron_id)).values(**values, updated_at=sa.func.now()).returning(*_SHOWN)
    )
    assert row is not None
    return row


async def delete(session: Writer, tenant_id: UUID, cron_id: UUID) -> int:
    """Remove a cron; how many it was."""
    which = _one(tenant_id, cron_id), *session.within(crons.c.metadata)
    return await session.execute(sa.delete(crons).where(*which))


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
    """A page of crons, of one assistant or of all."""
    column = crons.c[wanted.sort_by or "created_at"]
    order = column.asc() if wanted.sort_order == "asc" else column.desc()
    return await session.all(
        sa.select(*_SHOWN)
        .where(*_matching(session, tenant_id, wanted, assistant_id))
        .order_by(order.nulls_last(), crons.c.cron_id)
        .limit(wanted.limit)
        .offset(wanted.offset)
    )


async def count(session: Reader, tenant_id: UUID, wanted: CronSearch, assistant_id: UUID | None) -> int:
    """How many crons match, on all pages."""
    matching = _matching(session, tenant_id, wanted, assistant_id)
    found = await session.scalar(sa.select(sa.func.count()).select_from(crons).where(*matching))
    return int(found)
