"""SQL of the audit log."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row

from app.infra.db.session import Reader
from app.security.audit.tables import audit_log

WRITE = """
insert into audit_log (tenant_id, entry_id, action, actor, subject, count)
select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[])
"""

USED = """
update api_keys set last_used_at = date_trunc('minute', now())
where key_id = any($1) and (last_used_at is null or last_used_at < date_trunc('minute', now()))
"""

_SHOWN = [column for column in audit_log.c if column.name != "tenant_id"]


async def entries(session: Reader, tenant_id: UUID, limit: int, before: UUID | None) -> Sequence[Row[Any]]:
    """Return the newest entries first, older than the entry ``before``."""
    statement = sa.select(*_SHOWN).where(audit_log.c.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(audit_log.c.entry_id < before)
    return await session.all(statement.order_by(audit_log.c.entry_id.desc()).limit(limit))
