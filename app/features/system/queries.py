"""SQL of health checks and of the storage gauges."""

import sqlalchemy as sa

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
