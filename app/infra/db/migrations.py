"""Run Alembic migrations from within the program, and create the roles of the server and its commands.

Roles belong to the PostgreSQL server, not to a database. Migrations create them; a database dump does not contain them,
so a restore on another server creates them first. Alembic is imported only if there is something to apply: that takes
0.25 s.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import StartError
from app.infra.db import sql
from app.infra.db.connect_errors import reason
from app.infra.db.revisions import REVISIONS
from app.infra.db.url import to_sqlalchemy

if TYPE_CHECKING:
    from alembic.config import Config


ROOT = Path(__file__).parents[3]
"""Contains ``alembic.ini`` and ``migrations/`` next to the package, in a checkout, an image and a wheel alike."""

OLDEST_SERVER = 16

INSUFFICIENT_PRIVILEGE = "42501"
LOCK_NOT_AVAILABLE = "55P03"
DISK_FULL = "53100"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""

ROLES = ("agent_app", "agent_engine", "agent_eraser")


def configuration(url: str | None = None) -> "Config":
    """Return Alembic's configuration for the database at ``url``; None: ``migrations/env.py`` reads the environment."""
    from alembic.config import Config

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Apply pending migrations to the database at ``url``, as its owner. Blocks; must not be called in a running loop.

    Concurrent calls are safe: one migrates, the others wait and find nothing to do. A failed migration is rolled back;
    those before it stay applied. Raises ``StartError``.
    """
    found = asyncio.run(current(url))
    if found == REVISIONS[-1]:
        return
    if found is not None and found not in REVISIONS:
        raise StartError(
            f"the database is at revision {found}, which this program does not know: run a newer version of "
            f"agent-service, or check that DATABASE_URL names the right database"
        )
    from alembic import command
    from alembic.util.exc import CommandError

    try:
        command.upgrade(configuration(url), "head")
    except (OSError, SQLAlchemyError, CommandError) as error:
        if getattr(getattr(error, "orig", None), "sqlstate", "") == INSUFFICIENT_PRIVILEGE:
            raise StartError(
                f"the user of the migrations lacks a privilege ({_reason(error)}): set "
                "MIGRATE_DATABASE_URL to the owner "
                f"of the database, which needs CREATEROLE, and CREATE in its schema public"
            ) from error
        raise StartError(f"the migrations could not be applied ({_reason(error)})") from error


def head() -> str:
    """Return the newest revision of this program."""
    return REVISIONS[-1]


async def current(url: str) -> str | None:
    """Return the revision of the database at ``url``, None if it is empty.

    Raises ``StartError`` if it is unreachable or its PostgreSQL is too old.
    """
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with asyncio.timeout(10), engine.connect() as connection:
            server = connection.dialect.server_version_info or ()
            if server < (OLDEST_SERVER,):
                raise StartError(
                    f"the database is PostgreSQL {server[0]}; version {OLDEST_SERVER} or later is required"
                )
            if not await connection.scalar(sql.HAS_VERSION_TABLE):
                return None
            await connection.execute(sql.SET_APP_ROLE_IF_NEEDED)
            version: str | None = await connection.scalar(sql.VERSION)
            return version
    except (OSError, SQLAlchemyError) as error:
        raise StartError(reason(error, url)) from error
    finally:
        await engine.dispose()


async def pending(url: str) -> list[str]:
    """Return the revisions that the database at ``url`` lacks; none if it is newer than this program."""
    found = await current(url)
    if found is None:
        return list(REVISIONS)
    return list(REVISIONS[REVISIONS.index(found) + 1 :]) if found in REVISIONS else []


def _reason(error: Exception) -> str:
    origin = getattr(error, "orig", None) or error
    message = str(origin).split("\n", 1)[0] or type(origin).__name__
    if getattr(origin, "sqlstate", "") == LOCK_NOT_AVAILABLE:
        return f"{message}: another process migrates or locks a table; try again when it is done"
    if getattr(origin, "sqlstate", "") == DISK_FULL:
        return "the database's disk is full: free space on it and start again"
    return message


async def ensure_roles(url: str) -> None:
    """Create missing roles and grant them to the owner at ``url``. Raises ``StartError``."""
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with engine.begin() as connection:
            for role in ROLES:
                await connection.execute(sql.create_role(role))
    except (OSError, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error).split("\n", 1)[0].rpartition(">: ")[2]
        raise StartError(
            f"the roles {', '.join(ROLES)} could not be created or granted ({reason}): let the owner "
            "of the database create "
            f"roles (alter role … createrole), or, as a superuser, create them and grant them to it with set true"
        ) from error
    finally:
        await engine.dispose()
