"""SQL of connections, migrations, roles and the schema check."""

from uuid import UUID

import sqlalchemy as sa

LONG_IDLE = "10min"
"""Of transactions that hold no lock for which others wait: a snapshot waits for the reader of an export, an import of
threads for the process that runs graphs.
"""

PING = "select 1"

GROUP_LOCK_TIMEOUT = "set lock_timeout = '250ms'"
"""How long a group of entries of many tenants waits for a lock."""

SET_TENANT = sa.text("select set_config('app.tenant', :tenant, true)")

_SET_LONG_IDLE = f"set_config('idle_in_transaction_session_timeout', '{LONG_IDLE}', true)"
SET_LONG_IDLE = sa.text(f"select {_SET_LONG_IDLE}")

SET_SNAPSHOT_TENANT = sa.text(f"select set_config('app.tenant', :tenant, true), {_SET_LONG_IDLE}")


def begin_as(tenant_id: UUID, settings: str) -> str:
    """Return statements that begin a transaction of a tenant with further ``set local …;`` statements."""
    return f"begin; set local app.tenant = '{tenant_id}'; {settings}"


TRANSACTION_ID = sa.text("select pg_current_xact_id()::text")

TRANSACTION_STATUS = sa.text("select pg_xact_status(cast(cast(:transaction as text) as xid8))")
"""``committed``, ``aborted`` or ``in progress``."""

SET_KEY = sa.text("select set_config('app.key_id', :key, true)")

WRITE_PROBE = """
insert into events (tenant_id, run_id, epoch, seq, body)
values ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 0, 0, $1)
"""
"""Into a logged table: the write-ahead log may have a disk of its own."""

LOCK_BATCHES = "select pg_try_advisory_xact_lock(hashtextextended('batches ' || $1, 0))"
"""Ends with the transaction, so that it works through a pooler and no process can leave it behind."""

CURRENT_ROLE = sa.text(
    "select current_user, rolsuper or rolbypassrls as unbound from pg_roles where rolname = current_user"
)

VERSION_TABLE = sa.text("select to_regclass('alembic_version')")

HAS_VERSION_TABLE = sa.text("select to_regclass('alembic_version') is not null")

SET_APP_ROLE_IF_NEEDED = sa.text(
    "select set_config('role', rolname, true) from pg_roles where rolname = 'agent_app'"
    " and pg_has_role(oid, 'SET') and not has_table_privilege('alembic_version', 'select')"
)
"""A user who is not the owner may read the version as requests do, even without inheriting their role."""

VERSION = sa.text("select version_num from alembic_version")

_CREATE_ROLE = """
do $$ begin
  if not exists (select from pg_roles where rolname = '{role}') then create role {role} nologin; end if;
  if not (select rolsuper from pg_roles where rolname = current_user) and not pg_has_role(current_user, '{role}', 'SET')
  then execute format('grant {role} to %I with inherit false, set true', current_user); end if;
end $$
"""


def create_role(role: str) -> sa.TextClause:
    """Return the statement that creates ``role`` if it is missing and grants it to the current user."""
    return sa.text(_CREATE_ROLE.format(role=role))


CATALOGUE = sa.text(
    """
select 'column ' || c.relname || '.' || a.attname
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
union all
select 'index ' || c.relname from pg_class c join pg_index i on i.indexrelid = c.oid and i.indisvalid
where c.relnamespace = 'public'::regnamespace
union all
select 'policies of ' || c.relname from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relrowsecurity and c.relforcerowsecurity
  and exists (select from pg_policy p where p.polrelid = c.oid)
union all
select 'trigger ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
where not t.tgisinternal and c.relnamespace = 'public'::regnamespace
union all
select 'function ' || p.proname from pg_proc p where p.pronamespace = 'public'::regnamespace
"""
)
