"""Alembic, from inside the program: bring a database to the newest schema, or tell what it lacks.

Alembic itself is loaded only when there is something to apply: it costs a quarter of a second.

The roles that the server and its commands work as. They belong to the PostgreSQL server, not to one database.

Migrations make them too. A dump of a database does not carry them, so a restore on another server makes them first.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import StartError
from app.infra.db.connect_errors import reason
from app.infra.db.revisions import REVISIONS
from app.infra.db.url import to_sqlalchemy

if TYPE_CHECKING:
    from alembic.config import Config


ROOT = Path(__file__).parents[3]
"""Where ``alembic.ini`` and ``migrations/`` lie beside the package, in a checkout, an image and a wheel alike."""

OLDEST_SERVER = 16

INSUFFICIENT_PRIVILEGE = "42501"
LOCK_NOT_AVAILABLE = "55P03"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""

HAS_VERSION = sa.text("select to_regclass('alembic_version') is not null")
SEE_VERSION = sa.text(
    "select set_config('role', rolname, true) from pg_roles where rolname = 'agent_app'"
    " and pg_has_role(oid, 'SET') and not has_table_privilege('alembic_version', 'select')"
)
"""A user who is not the owner may see the version as requests do, even where it does not inherit their role."""
VERSION = sa.text("select version_num from alembic_version")


def configuration(url: str | None = None) -> "Config":
    """Alembic's configuration for the database at ``url``; without one ``migrations/env.py`` asks the environment."""
    from alembic.config import Config

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Apply every pending migration to the database at ``url``, as its owner. Blocks; needs no running loop.

    Several processes may call it at once: one works, the others wait and find nothing to do. A migration that fails
    leaves those before it applied and nothing of itself. Raises ``StartError``.
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
                f"the user of the migrations lacks a right ({_reason(error)}): set MIGRATE_DATABASE_URL to the owner "
                f"of the database, who needs CREATEROLE, and CREATE in its schema public"
            ) from error
        raise StartError(f"the migrations could not be applied ({_reason(error)})") from error


def revisions() -> list[str]:
    """Every revision in ``migrations/versions``, oldest first; ``app.infra.db.revisions`` says the same without
    Alembic.
    """
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(configuration())
    return [revision.revision for revision in reversed(list(script.walk_revisions()))]


def head() -> str:
    """The newest revision that this program brings."""
    return REVISIONS[-1]


async def current(url: str) -> str | None:
    """The revision of the database at ``url``; None for an empty one.

    Raises ``StartError`` when it cannot be reached or is too old a PostgreSQL.
    """
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with asyncio.timeout(10), engine.connect() as connection:
            server = connection.dialect.server_version_info or ()
            if server < (OLDEST_SERVER,):
                raise StartError(f"the database is PostgreSQL {server[0]}; needed is {OLDEST_SERVER} or later")
            if not await connection.scalar(HAS_VERSION):
                return None
            await connection.execute(SEE_VERSION)
            version: str | None = await connection.scalar(VERSION)
            return version
    except (OSError, SQLAlchemyError) as error:
        raise StartError(reason(error, url)) from error
    finally:
        await engine.dispose()


async def pending(url: str) -> list[str]:
    """The revisions that the database at ``url`` lacks; none as well when it is ahead of this program."""
    found = await current(url)
    if found is None:
        return list(REVISIONS)
    return list(REVISIONS[REVISIONS.index(found) + 1 :]) if found in REVISIONS else []


def _reason(error: Exception) -> str:
    origin = getattr(error, "orig", None) or error
    words = str(origin).split("\n", 1)[0] or type(origin).__name__
    if getattr(origin, "sqlstate", "") == LOCK_NOT_AVAILABLE:
        return f"{words}: something holds a table, or another process migrates; try again when it is done"
    return words


ROLES = ("agent_app", "agent_engine", "agent_eraser")

_CREATE = """
do $$ begin
  if not exists (select from pg_roles where rolname = '{role}') then create role {role} nologin; end if;
  if not (select rolsuper from pg_roles where rolname = current_user) and not pg_has_role(current_user, '{role}', 'SET')
  then execute format('grant {role} to %I with inherit false, set true', current_user); end if;
end $$
"""


async def ensure_roles(url: str) -> None:
    """Make the roles that are missing and let the owner at ``url`` take them. Raises ``StartError``."""
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with engine.begin() as connection:
            for role in ROLES:
                await connection.execute(sa.text(_CREATE.format(role=role)))
    except (OSError, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error).split("\n", 1)[0].rpartition(">: ")[2]
        raise StartError(
            f"the roles {', '.join(ROLES)} could not be made or taken ({reason}): let the owner of the database create "
            f"roles (alter role … createrole), or, as a superuser, create them and grant them to it with set true"
        ) from error
    finally:
        await engine.dispose()
