"""Rows about what the server stands on: PostgreSQL, and Redis where there is one."""

import asyncio
import time
from typing import Any

from app.cli.doctor.checklist import Checklist, CheckUnavailable
from app.infra.settings.environment import Settings

AREA = "database"
SECONDS = 5.0
OLDEST_SERVER, OLDEST_VECTOR = 16, (0, 8)
MAX_SKEW = 1.0
ROLES = "agent_app", "agent_engine"

FACTS = {
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
"""What is asked, by name; each gives one value."""

CHECKS = ("PostgreSQL", "pgvector", "migrations", "login role", "roles", "row level security")


def psql(statement: str) -> str:
    """How a person asks it."""
    return f'psql "$DATABASE_URL" -Atc "{statement}"'


def add_rows(sheet: Checklist, settings: Settings) -> None:
    """Every row about the database and Redis of ``settings``."""
    if settings.database.url is None:
        sheet.leave(AREA, "reachable", "DATABASE_URL is not set")
    else:
        url = settings.database.url.reveal()
        if _database(sheet, url):
            default, command = settings.limits.bytes, "agent-service tenants usage NAME"
            expected = "no tenant over 90 % of what it may store"
            sheet.ask(AREA, "storage of tenants", command, expected, lambda: asyncio.run(_nearly_full(url, default)))
        else:
            sheet.leave(AREA, "storage of tenants", "the database does not answer, or lacks migrations")
    if settings.redis.url is None:
        sheet.leave("redis", "reachable", "REDIS_URL is not set")
    else:
        url = settings.redis.url.reveal()
        sheet.ask("redis", "reachable", 'redis-cli -u "$REDIS_URL" ping', "PONG", lambda: _redis(url))
    sheet.leave(AREA, "backup", "nobody can see one from here: docs/operations/backup.md")


def _database(sheet: Checklist, url: str) -> bool:
    """Every row about the database; whether it answers and has all migrations."""
    facts: dict[str, Any] = {}

    def ask() -> tuple[bool, str]:
        facts.update(asyncio.run(_facts(url)))
        return True, f"answered in {facts['took'] * 1000:.0f} ms"

    if not sheet.ask(AREA, "reachable", psql("select 1"), "an answer", ask):
        for check in (
            "PostgreSQL",
            "pgvector",
            "migrations",
            "login role",
            "roles",
            "row level security",
            "growth",
            "clock",
        ):
            sheet.leave(AREA, check, "the database does not answer")
        return False
    lacking, head = facts["lacking"], facts["head"]

    def row(check: str, fact: str, expected: str, *, holds: bool, seen: str) -> None:
        sheet.ask(AREA, check, psql(FACTS[fact]), expected, lambda: (holds, seen))

    server, vector = facts["server"], facts["vector"]
    row("PostgreSQL", "server", f"{OLDEST_SERVER} or later", holds=server >= OLDEST_SERVER, seen=str(server))
    new = vector is not None and tuple(map(int, vector.split(".")[:2])) >= OLDEST_VECTOR
    row("pgvector", "vector", "0.8 or later", holds=new, seen=vector or "not there")
    seen = f"lacks {', '.join(lacking)}" if lacking else f"at {facts['found']}"
    command = psql("select version_num from alembic_version")
    sheet.ask(AREA, "migrations", command, f"at head, {head}", lambda: (not lacking, seen))
    seen = "superuser, or past row level security" if facts["superuser"] else "neither superuser nor past it"
    row("login role", "superuser", "no superuser, no BYPASSRLS", holds=not facts["superuser"], seen=seen)
    if lacking:
        for check in ("roles", "row level security"):
            sheet.leave(AREA, check, "the migrations come first")
    else:
        wrong = [f"{facts['unbound']} unbound"] * bool(facts["unbound"]) + [f"own {facts['owning']}"] * bool(
            facts["owning"]
        )
        wrong += ["missing"] * (facts["roles"] != len(ROLES))
        expected = f"{' and '.join(ROLES)} there, bound by RLS, owning nothing"
        row("roles", "unbound", expected, holds=not wrong, seen="; ".join(wrong) or "as expected")
        open_to = facts["open"]
        seen = f"not on {open_to}" if open_to else f"forced on {facts['bound']} tables"
        row("row level security", "open", "forced on every table of tenants", holds=not open_to, seen=seen)
    sizes = facts["growth"] or "no tables yet"
    row("growth", "growth", "what retention bounds (AGENT_KEEP_…), with its size", holds=True, seen=sizes)
    skew = facts["skew"]
    row("clock", "clock", f"within {MAX_SKEW:g} s of this machine", holds=skew <= MAX_SKEW, seen=f"{skew:.3f} s apart")
    return not lacking


async def _nearly_full(url: str, default: int) -> tuple[bool, str]:
    """Whether no tenant has used more than 90 % of its limit on stored bytes; ``default`` is that of the settings."""
    from app.base.byte_sizes import show_size
    from app.infra.db.engine import Database
    from app.security.limits.queries import FULLEST, NEARLY_FULL

    database = Database(url, requests=1, engine=1)
    try:
        async with asyncio.timeout(2 * SECONDS), database.engine_connection() as connection:
            rows = [row for row in await connection.fetch(NEARLY_FULL, default) if row["most"]]
            fullest = await connection.fetchval(FULLEST)
    except TimeoutError as error:
        raise CheckUnavailable("no answer in time") from error
    finally:
        await database.aclose()
    found = [f"{row['name']}: {show_size(row['bytes'])} of {show_size(row['most'])}" for row in rows]
    return not found, "; ".join(found) or f"at most {fullest:.0%}"


async def _facts(url: str) -> dict[str, Any]:
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine

    from app.base.errors import StartError
    from app.infra.db.migrations import current, head, pending
    from app.infra.db.url import to_sqlalchemy

    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": SECONDS})
    try:
        async with asyncio.timeout(2 * SECONDS), engine.connect() as connection:
            found = {name: await connection.scalar(sa.text(statement)) for name, statement in FACTS.items()}
            before = time.time()
            found["clock"] = await connection.scalar(sa.text(FACTS["clock"]))
            after = time.time()
    except (OSError, SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or error
        raise StartError(f"no answer ({type(reason).__name__})") from error
    finally:
        await engine.dispose()
    found["took"] = after - before
    found["skew"] = max(0.0, abs(found["clock"] - (before + after) / 2) - (after - before) / 2)
    found["lacking"], found["found"], found["head"] = await pending(url), await current(url), head()
    return found


def _redis(url: str) -> tuple[bool, str]:
    import redis

    client = redis.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
    try:
        client.ping()
        return True, "PONG"
    except redis.RedisError as error:
        return False, type(error).__name__
    finally:
        client.close()
