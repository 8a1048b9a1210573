"""SQL of the checklist: facts about the database that a server needs."""

QUERIES = {
    "server": "select current_setting('server_version_num')::int / 10000",
    "vector": "select extversion from pg_extension where extname = 'vector'",
    "superuser": "select rolsuper or rolbypassrls from pg_roles where rolname = session_user",
    "unbound": (
        "select string_agg(rolname, ', ') from pg_roles"
        " where rolname in ('agent_app', 'agent_engine') and (rolsuper or rolbypassrls)"
    ),
    "roles": "select count(*) from pg_roles where rolname in ('agent_app', 'agent_engine')",
    "owning": (
        "select string_agg(tablename, ', ') from pg_tables where schemaname = current_schema()"
        " and tableowner in ('agent_app', 'agent_engine')"
    ),
    "open": (
        "select string_agg(relname, ', ') from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relkind in ('r', 'p') and c.relnamespace = current_schema()::regnamespace"
        " and a.attname = 'tenant_id' and not a.attisdropped and not (c.relrowsecurity and c.relforcerowsecurity)"
    ),
    "bound": (
        "select count(*) from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relkind in ('r', 'p') and c.relnamespace = current_schema()::regnamespace"
        " and a.attname = 'tenant_id' and not a.attisdropped and c.relrowsecurity and c.relforcerowsecurity"
    ),
    "growth": (
        "select string_agg(relname || ' ' || pg_size_pretty(pg_total_relation_size(oid)), ', '"
        " order by pg_total_relation_size(oid) desc) from pg_class"
        " where relkind = 'r' and relnamespace = current_schema()::regnamespace and relname in"
        " ('audit_log', 'checkpoint_items', 'checkpoints', 'events', 'run_transitions', 'runs', 'steps')"
    ),
    "clock": "select extract(epoch from clock_timestamp())::float8",
}
"""By name of the fact; each query returns one value."""

REACHABLE = "select 1"
MIGRATED_TO = "select version_num from alembic_version"
"""Shown to people only; ``app.infra.db.migrations`` reads the revision."""
