"""SQL of API keys and tenants."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import ARRAY, insert

from app.infra.db.session import Reader, Writer
from app.security.access.tables import api_keys, tenants
from app.security.limits.tables import spending, storage_usage

_SHOWN = [column for column in api_keys.c if column.name not in {"digest", "previous_digest"}]

_VALID = sa.and_(
    api_keys.c.revoked_at.is_(None),
    sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.func.now()),
)

_LIVE = (
    sa.select(
        api_keys.c.key_id,
        api_keys.c.digest,
        sa.case((api_keys.c.previous_until > sa.func.now(), api_keys.c.previous_digest)).label("previous_digest"),
        api_keys.c.tenant_id,
        api_keys.c.scopes,
        api_keys.c.user_id,
        tenants.c.limits,
    )
    .join_from(api_keys, tenants, api_keys.c.tenant_id == tenants.c.tenant_id)
    .where(api_keys.c.key_id == sa.any_(sa.bindparam("key_ids", type_=ARRAY(sa.Text))), _VALID)
)


async def ensure_tenant(session: Writer, tenant_id: UUID, name: str) -> None:
    """Insert the tenant unless it exists."""
    await session.execute(insert(tenants).values(tenant_id=tenant_id, name=name).on_conflict_do_nothing())


async def limits_of(session: Reader, tenant_id: UUID) -> Any:
    """Return the tenant's own limits as JSON, None if the tenant is unknown."""
    return await session.scalar(sa.select(tenants.c.limits).where(tenants.c.tenant_id == tenant_id))


async def set_limits(session: Writer, tenant_id: UUID, limits: Mapping[str, Any]) -> None:
    """Replace the tenant's own limits."""
    await session.execute(sa.update(tenants).where(tenants.c.tenant_id == tenant_id).values(limits=limits))


async def spending_of(session: Reader, tenant_id: UUID) -> Sequence[Row[Any]]:
    """Return the tenant's spending by day, newest first, at most 31 days."""
    shown = [column for column in spending.c if column.name != "tenant_id"]
    statement = sa.select(*shown).where(spending.c.tenant_id == tenant_id)
    return await session.all(statement.order_by(spending.c.day.desc()).limit(31))


async def stored_of(session: Reader, tenant_id: UUID) -> Row[Any] | None:
    """Return the tenant's storage usage as last measured, None if it never was."""
    shown = storage_usage.c.bytes, storage_usage.c.by_kind, storage_usage.c.measured_at
    of_tenant = storage_usage.c.tenant_id == tenant_id, storage_usage.c.measured_at.is_not(None)
    return await session.first(sa.select(*shown).where(*of_tenant))


async def add(session: Writer, tenant_id: UUID, key_id: str, *, digest: bytes, **shown: Any) -> Row[Any]:
    """Insert a key with its ``name``, ``scopes``, ``user_id`` and ``expires_at``; return the row without digests."""
    statement = (
        sa.insert(api_keys).values(tenant_id=tenant_id, key_id=key_id, digest=digest, **shown).returning(*_SHOWN)
    )
    row = await session.first(statement)
    assert row is not None
    return row


async def listed(session: Reader, tenant_id: UUID) -> Sequence[Row[Any]]:
    """Return the tenant's keys, oldest first."""
    return await session.all(
        sa.select(*_SHOWN).where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.created_at)
    )


async def rotate(session: Writer, tenant_id: UUID, key_id: str, digest: bytes, overlap: timedelta) -> Row[Any] | None:
    """Replace a valid key's secret; the previous one stays valid for ``overlap``. Returns the row without digests."""
    return await session.first(
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id, _VALID)
        .values(
            digest=digest,
            previous_digest=api_keys.c.digest if overlap else None,
            previous_until=sa.func.now() + overlap if overlap else None,
        )
        .returning(*_SHOWN)
    )


async def revoke(session: Writer, tenant_id: UUID, key_id: str) -> int:
    """Revoke a key; return the number of rows."""
    return await session.execute(
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
        .values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.now()))
    )


async def live(session: Reader, key_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return digests, tenants and scopes, by key id, of keys not revoked or expired (by the database's clock)."""
    return {row.key_id: row for row in await session.all(_LIVE, {"key_ids": list(key_ids)})}


async def key_is_valid(session: Reader, tenant_id: UUID, key_id: str) -> bool:
    """Whether a key of the tenant is neither revoked nor expired."""
    which = api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id
    return await session.scalar(sa.select(sa.literal(1)).where(*which, _VALID)) is not None


async def move(session: Writer, tenant_id: UUID, key_id: str, column: str, digests: tuple[bytes, bytes]) -> None:
    """Replace the first of ``digests`` by the second, unless the key has another secret by now."""
    was, digest = digests
    await session.execute(
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id, api_keys.c[column] == was)
        .values({column: digest})
    )
