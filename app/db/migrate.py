"""Alembic, from inside the program: bring a database to the newest schema, or tell what it lacks."""

import asyncio
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import StartError
from app.db.url import to_sqlalchemy

ROOT = Path(__file__).parents[2]
"""Where ``alembic.ini`` and ``migrations/`` lie beside the package."""


def _config(url: str | None = None) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Apply every pending migration to the database at ``url``, as its owner. Blocks; needs no running loop.

    Several processes may call it at once: one works, the others wait and find nothing to do. Raises ``StartError``.
    """
    try:
        command.upgrade(_config(url), "head")
    except (OSError, SQLAlchemyError, CommandError, TimeoutError) as error:
        raise StartError(f"the migrations could not be applied: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    words = str(origin).split("\n", 1)[0].removeprefix("<class 'asyncpg.exceptions.").strip()
    return f"{type(origin).__name__}: {words}" if words else type(origin).__name__


def revisions() -> list[str]:
    """Every revision that this program brings, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in reversed(list(script.walk_revisions()))]


def head() -> str:
    """The newest revision."""
    return revisions()[-1]


async def current(url: str) -> str | None:
    """The revision of the database at ``url``; None for an empty one. Raises ``StartError`` without a database."""
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with asyncio.timeout(10), engine.connect() as connection:
            if await connection.scalar(sa.text("select to_regclass('alembic_version')")) is None:
                return None
            version: str | None = await connection.scalar(sa.text("select version_num from alembic_version"))
            return version
    except (OSError, SQLAlchemyError, TimeoutError) as error:
        raise StartError(f"the database cannot be reached ({_reason(error)}): check DATABASE_URL") from error
    finally:
        await engine.dispose()


async def pending(url: str) -> list[str]:
    """The revisions that the database at ``url`` lacks; none as well when it is ahead of this program."""
    known, found = revisions(), await current(url)
    if found is None:
        return known
    return known[known.index(found) + 1 :] if found in known else []
