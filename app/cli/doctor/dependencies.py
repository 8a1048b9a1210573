"""Checks of the server's dependencies: PostgreSQL, and Redis if configured."""

import asyncio
import time
from typing import Any

from app.cli.doctor.checklist import Checklist, CheckUnavailable
from app.cli.doctor.queries import MIGRATED_TO, QUERIES, REACHABLE
from app.infra.settings.environment import Settings

AREA = "database"
TIMEOUT = 5.0
MIN_POSTGRESQL, MIN_PGVECTOR = 16, (0, 8)
MAX_SKEW = 1.0
ROLES = "agent_app", "agent_engine"


def psql(statement: str) -> str:
    """Return the psql command for ``statement``."""
    return f'psql "$DATABASE_URL" -Atc "{statement}"'


def add_rows(checklist: Checklist, settings: Settings) -> None:
    """Check the database and Redis of ``settings``."""
    if settings.database.url is None:
        checklist.omit(AREA, "reachable", "DATABASE_URL is not set")
    else:
        url = settings.database.url.reveal()
        if _database(checklist, url):
            default, command = settings.limits.bytes, "agent-service tenants usage NAME"
            expected = "no tenant over 90 % of what it may store"
            checklist.check(
                AREA, "storage of tenants", command, expected, lambda: asyncio.run(_nearly_full(url, default))
            )
        else:
            checklist.omit(AREA, "storage of tenants", "the database does not answer, or lacks migrations")
    if settings.redis.url is None:
        checklist.omit("redis", "reachable", "REDIS_URL is not set")
    else:
        url = settings.redis.url.reveal()
        checklist.check("redis", "reachable", 'redis-cli -u "$REDIS_URL" ping', "PONG", lambda: _redis(url))
    checklist.omit(AREA, "backup", "cannot be checked from here: see docs/operations/backup.md")


def _database(checklist: Checklist, url: str) -> bool:
    """Check the database; return whether it answers and has all migrations."""
    facts: dict[str, Any] = {}

    def connect() -> tuple[bool, str]:
        facts.update(asyncio.run(_query_facts(url)))
        return True, f"answered in {facts['took'] * 1000:.0f} ms"

    if not checklist.check(AREA, "reachable", psql(REACHABLE), "an answer", connect):
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
            checklist.omit(AREA, check, "the database does not answer")
        return False
    missing, head = facts["missing"], facts["head"]

    def row(check: str, fact: str, expected: str, *, holds: bool, seen: str) -> None:
        checklist.check(AREA, check, psql(QUERIES[fact]), expected, lambda: (holds, seen))

    server, vector = facts["server"], facts["vector"]
    row("PostgreSQL", "server", f"{MIN_POSTGRESQL} or later", holds=server >= MIN_POSTGRESQL, seen=str(server))
    new = vector is not None and tuple(map(int, vector.split(".")[:2])) >= MIN_PGVECTOR
    row("pgvector", "vector", "0.8 or later", holds=new, seen=vector or "not installed")
    seen = f"lacks {', '.join(missing)}" if missing else f"at {facts['found']}"
    command = psql(MIGRATED_TO)
    checklist.check(AREA, "migrations", command, f"at head, {head}", lambda: (not missing, seen))
    seen = "superuser or BYPASSRLS" if facts["superuser"] else "neither superuser nor BYPASSRLS"
    row("login role", "superuser", "no superuser, no BYPASSRLS", holds=not facts["superuser"], seen=seen)
    if missing:
        for check in ("roles", "row level security"):
            checklist.omit(AREA, check, "migrations are missing")
    else:
        wrong = [f"{facts['unbound']} unbound"] * bool(facts["unbound"]) + [f"own {facts['owning']}"] * bool(
            facts["owning"]
        )
        wrong += ["missing"] * (facts["roles"] != len(ROLES))
        expected = f"{' and '.join(ROLES)} exist, bound by RLS, owning nothing"
        row("roles", "unbound", expected, holds=not wrong, seen="; ".join(wrong) or "as expected")
        open_to = facts["open"]
        seen = f"not on {open_to}" if open_to else f"forced on {facts['bound']} tables"
        row("row level security", "open", "forced on every table of tenants", holds=not open_to, seen=seen)
    sizes = facts["growth"] or "no tables yet"
    row("growth", "growth", "tables that retention bounds (AGENT_KEEP_…), with their size", holds=True, seen=sizes)
    skew = facts["skew"]
    row("clock", "clock", f"within {MAX_SKEW:g} s of this machine", holds=skew <= MAX_SKEW, seen=f"{skew:.3f} s apart")
    return not missing


async def _nearly_full(url: str, default: int) -> tuple[bool, str]:
    """Check that no tenant uses more than 90 % of its storage limit; ``default``: the limit of the settings."""
    from app.base.byte_sizes import show_size
    from app.infra.db.engine import Database
    from app.security.limits.queries import FULLEST, NEARLY_FULL

    database = Database(url, requests=1, engine=1)
    try:
        async with asyncio.timeout(2 * TIMEOUT), database.engine_connection() as connection:
            rows = [row for row in await connection.fetch(NEARLY_FULL, default) if row["max_bytes"]]
            fullest = await connection.fetchval(FULLEST)
    except TimeoutError as error:
        raise CheckUnavailable("no answer in time") from error
    finally:
        await database.aclose()
    found = [f"{row['name']}: {show_size(row['bytes'])} of {show_size(row['max_bytes'])}" for row in rows]
    return not found, "; ".join(found) or f"at most {fullest:.0%}"


async def _query_facts(url: str) -> dict[str, Any]:
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine

    from app.base.errors import StartError
    from app.infra.db.migrations import current, head, pending
    from app.infra.db.url import to_sqlalchemy

    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": TIMEOUT})
    try:
        async with asyncio.timeout(2 * TIMEOUT), engine.connect() as connection:
            found = {name: await connection.scalar(sa.text(statement)) for name, statement in QUERIES.items()}
            before = time.time()
            found["clock"] = await connection.scalar(sa.text(QUERIES["clock"]))
            after = time.time()
    except (OSError, SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or error
        raise StartError(f"no answer ({type(reason).__name__})") from error
    finally:
        await engine.dispose()
    found["took"] = after - before
    found["skew"] = max(0.0, abs(found["clock"] - (before + after) / 2) - (after - before) / 2)
    found["missing"], found["found"], found["head"] = await pending(url), await current(url), head()
    return found


def _redis(url: str) -> tuple[bool, str]:
    import redis

    client = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    try:
        client.ping()
        return True, "PONG"
    except redis.RedisError as error:
        return False, type(error).__name__
    finally:
        client.close()
