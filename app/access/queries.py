"""SQL of keys and tenants."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import insert

from app.access.tables import api_keys, tenants
from app.db.session import Reader, Writer

_SHOWN = (
    api_keys.c.key_id,
    api_keys.c.name,
    api_keys.c.tenant_id,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.revoked_at,
)

_LIVE = sa.select(api_keys.c.digest, api_keys.c.tenant_id, api_keys.c.scopes).where(
    api_keys.c.key_id == sa.bindparam("key_id"),
    api_keys.c.revoked_at.is_(None),
    sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.func.now()),
)


async def ensure_tenant(session: Writer, tenant_id: UUID, name: str) -> None:
    """Make the tenant unless it is there."""
    await session.execute(insert(tenants).values(tenant_id=tenant_id, name=name).on_conflict_do_nothing())


async def add(
    session: Writer, tenant_id: UUID, key_id: str, *, digest: bytes, expires_at: datetime | None, **shown: Any
) -> Row[Any]:
    """Store a key with its ``name`` and ``scopes``; the row as it is shown."""
    statement = (
        sa.insert(api_keys)
        .values(tenant_id=tenant_id, key_id=key_id, digest=digest, expires_at=expires_at, **shown)
        .returning(*_SHOWN)
    )
    row = await session.first(statement)
    assert row is not None
    return row


async def listed(session: Reader, tenant_id: UUID) -> Sequence[Row[Any]]:
    """The tenant's keys, oldest first."""
    return await session.all(
        sa.select(*_SHOWN).where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.created_at)
    )


async def revoke(session: Writer, tenant_id: UUID, key_id: str) -> int:
    """Void a key; how many it was."""
    return await session.execute(
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
        .values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.now()))
    )


async def live(session: Reader, key_id: str) -> Row[Any] | None:
    """The digest, tenant and scopes of a key that is neither revoked nor expired, by the database's clock."""
    return await session.first(_LIVE, {"key_id": key_id})
