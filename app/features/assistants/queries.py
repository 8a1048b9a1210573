"""SQL of assistants."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import JSONB, insert

from app.features.assistants.structs import AssistantPatch, AssistantSearch
from app.features.assistants.tables import assistant_versions, assistants
from app.infra.db.columns import stored_fields
from app.infra.db.session import Reader, Writer

_PUBLIC = [column for column in assistants.c if column.name != "tenant_id"]
_PUBLIC_VERSION = [column for column in assistant_versions.c if column.name != "tenant_id"]
VERSIONED = stored_fields(AssistantPatch, assistants)
"""Columns that are versioned."""


def _one(tenant_id: UUID, assistant_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(assistants.c.tenant_id == tenant_id, assistants.c.assistant_id == assistant_id)


async def add(session: Writer, tenant_id: UUID, values: Mapping[str, Any]) -> Row[Any] | None:
    """Insert an assistant as version 1; None if its id is taken."""
    row = await session.first(
        insert(assistants).values(tenant_id=tenant_id, **values).on_conflict_do_nothing().returning(*_PUBLIC)
    )
    if row is not None:
        await add_version(session, tenant_id, row)
    return row


async def add_version(session: Writer, tenant_id: UUID, row: Row[Any]) -> None:
    """Insert ``row`` as a version."""
    values = {name: getattr(row, name) for name in VERSIONED}
    await session.execute(
        sa.insert(assistant_versions).values(
            tenant_id=tenant_id, assistant_id=row.assistant_id, version=row.version, created_at=row.updated_at, **values
        )
    )


async def add_system(session: Writer, tenant_id: UUID, agents: Sequence[tuple[UUID, str]]) -> None:
    """Insert missing system assistants, given as (id, agent's name)."""
    rows = [
        {
            "tenant_id": tenant_id,
            "assistant_id": assistant_id,
            "graph_id": name,
            "name": name,
            "metadata": {"created_by": "system"},
        }
        for assistant_id, name in agents
    ]
    if rows:
        statement = insert(assistants).values(rows).on_conflict_do_nothing().returning(*_PUBLIC)
        for row in await session.all(statement):
            await add_version(session, tenant_id, row)


async def get(session: Reader, tenant_id: UUID, assistant_id: UUID) -> Row[Any] | None:
    """Return an assistant; None if missing or out of scope."""
    scope = session.within(assistants.c.metadata)
    return await session.first(sa.select(*_PUBLIC).where(_one(tenant_id, assistant_id), *scope))


async def change(
    session: Writer, tenant_id: UUID, assistant_id: UUID, values: Mapping[str, Any], version: int | None = None
) -> Row[Any] | None:
    """Update an assistant; ``version`` defaults to the next new one."""
    newest = (
        sa.select(sa.func.max(assistant_versions.c.version) + 1)
        .where(assistant_versions.c.tenant_id == tenant_id, assistant_versions.c.assistant_id == assistant_id)
        .scalar_subquery()
    )
    return await session.first(
        sa.update(assistants)
        .where(_one(tenant_id, assistant_id), *session.within(assistants.c.metadata))
        .values(**values, version=newest if version is None else version, updated_at=sa.func.now())
        .returning(*_PUBLIC)
    )


async def delete(session: Writer, tenant_id: UUID, assistant_id: UUID) -> int:
    """Delete an assistant and its versions; return the number of deleted assistants."""
    scope = session.within(assistants.c.metadata)
    return await session.execute(sa.delete(assistants).where(_one(tenant_id, assistant_id), *scope))


def _matching(session: Reader, tenant_id: UUID, search: AssistantSearch) -> list[sa.ColumnElement[bool]]:
    # names of internal agents begin with an underscore, which the agents file does not allow
    internal = assistants.c.graph_id.startswith("_", autoescape=True)
    conditions: list[sa.ColumnElement[bool]] = [assistants.c.tenant_id == tenant_id, sa.not_(internal)]
    conditions += session.within(assistants.c.metadata)
    if search.metadata:
        conditions.append(assistants.c.metadata.op("@>")(sa.cast(search.metadata, JSONB)))
    if search.graph_id is not None:
        conditions.append(assistants.c.graph_id == search.graph_id)
    if search.name:
        conditions.append(assistants.c.name.icontains(search.name, autoescape=True))
    return conditions


async def search(session: Reader, tenant_id: UUID, wanted: AssistantSearch) -> Sequence[Row[Any]]:
    """Return a page of assistants."""
    column = assistants.c[wanted.sort_by or "created_at"]
    order = column.asc() if wanted.sort_order == "asc" else column.desc()
    return await session.all(
        sa.select(*_PUBLIC)
        .where(*_matching(session, tenant_id, wanted))
        .order_by(order, assistants.c.assistant_id)
        .limit(wanted.limit)
        .offset(wanted.offset)
    )


async def count(session: Reader, tenant_id: UUID, wanted: AssistantSearch) -> int:
    """Count all matching assistants."""
    matching = _matching(session, tenant_id, wanted)
    return int(await session.scalar(sa.select(sa.func.count()).select_from(assistants).where(*matching)))


def _of_one(session: Reader, tenant_id: UUID, assistant_id: UUID) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a version belongs to the assistant, and that the assistant is in scope."""
    conditions = [assistant_versions.c.tenant_id == tenant_id, assistant_versions.c.assistant_id == assistant_id]
    if scope := session.within(assistants.c.metadata):
        conditions.append(sa.exists().where(_one(tenant_id, assistant_id), *scope))
    return conditions


async def versions(
    session: Reader, tenant_id: UUID, assistant_id: UUID, *, metadata: dict[str, Any] | None, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """Return a page of an assistant's versions, newest first."""
    statement = sa.select(*_PUBLIC_VERSION).where(*_of_one(session, tenant_id, assistant_id))
    if metadata:
        statement = statement.where(assistant_versions.c.metadata.op("@>")(sa.cast(metadata, JSONB)))
    return await session.all(statement.order_by(assistant_versions.c.version.desc()).limit(limit).offset(offset))


async def version(session: Reader, tenant_id: UUID, assistant_id: UUID, number: int) -> Row[Any] | None:
    """Return a version; None if missing or out of scope."""
    return await session.first(
        sa.select(*_PUBLIC_VERSION).where(
            *_of_one(session, tenant_id, assistant_id), assistant_versions.c.version == number
        )
    )


_LAST_CONFIGURABLE = sa.text(
    "select a.config -> 'configurable' from runs r join assistants a using (tenant_id, assistant_id)"
    " where r.tenant_id = :tenant and r.thread_id = :thread order by r.ordinal desc limit 1"
)


async def last_configurable(session: Reader, tenant_id: UUID, thread_id: UUID) -> dict[str, Any]:
    """Return the ``configurable`` of the assistant that ran on the thread last; nothing if it has none."""
    row = await session.first(_LAST_CONFIGURABLE, {"tenant": tenant_id, "thread": thread_id})
    return (row and row[0]) or {}
