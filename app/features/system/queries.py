"""SQL of health checks, of the storage gauges, and of what operators see."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row

from app.infra.db.session import Reader
from app.security.access.tables import api_keys
from app.security.limits.tables import usage_by_day

REVISION = sa.text("select coalesce(max(version_num), '') from alembic_version")

SIZES = """
select $1 as part, pg_database_size(current_database())::float8 as bytes
union all
select part, sum(pg_total_relation_size(c.oid))::float8
from unnest($2::text[], $3::text[]) as t (part, pattern)
join pg_class c on c.relname ~ pattern and c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
group by part
"""
"""Bytes by part: the database as $1, and the tables that match the patterns $3 as parts $2."""

_SUMS = (
    *(
        sa.func.sum(usage_by_day.c[name]).cast(sa.BigInteger).label(name)
        for name in ("runs", "failed", "input_tokens", "output_tokens")
    ),
    sa.func.sum(usage_by_day.c.spent).cast(sa.Double).label("dollars"),
)


async def usage(
    session: Reader, tenant_id: UUID, since: date, until: date, by: Sequence[str], limit: int
) -> Sequence[Row[Any]]:
    """Return a tenant's usage of the days ``since`` to ``until``, summed over all parts of the key but ``by``."""
    parts: list[sa.ColumnElement[Any]] = [usage_by_day.c[name] for name in dict.fromkeys(by)]
    shown = parts.copy()
    if "requested_by" in by:
        of_key = api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == usage_by_day.c.requested_by
        shown.append(sa.select(api_keys.c.name).where(*of_key).scalar_subquery().label("key_name"))
    which = [usage_by_day.c.tenant_id == tenant_id, usage_by_day.c.day.between(since, until)]
    if "model" in by:
        which.append(usage_by_day.c.model != "")
    statement = sa.select(*shown, *_SUMS).where(*which).group_by(*parts).order_by(*parts).limit(limit)
    return await session.all(statement)


_QUEUE = sa.text("""
select coalesce(a.graph_id, '') as agent, count(*) filter (where r.due) as pending,
  count(*) filter (where not r.due) as scheduled, count(*) filter (where r.due is null) as running,
  min(r.available_at) filter (where r.due) as oldest_due
from (
  select assistant_id, available_at <= now() as due, available_at
  from runs where tenant_id = :tenant and status = 'pending'
  union all
  select assistant_id, null, null from runs where tenant_id = :tenant and status = 'running'
) as r
left join assistants a on a.tenant_id = :tenant and a.assistant_id = r.assistant_id
group by 1 order by 1
""")


async def queue_of(session: Reader, tenant_id: UUID) -> Sequence[Row[Any]]:
    """Return the runs of a tenant that have not ended, by the name of their agent (empty: of a deleted assistant)."""
    return await session.all(_QUEUE, {"tenant": tenant_id})


WORKERS = """
select owner as worker, left(owner::text, 13) as server, count(*) as runs, min(started_at) as oldest_started_at,
  min(lease_until) as lease_until
from runs where status = 'running' and owner is not null group by owner order by 2, 1
"""
"""Processes that hold runs; owners of a server share a prefix (``app.base.ids.owner_id``)."""
