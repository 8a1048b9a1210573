"""How Alembic reaches the database: as its owner, one transaction a revision, never waiting long for a table."""

import asyncio

import sqlalchemy as sa
from alembic import context
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.base.errors import StartError, UsageError
from app.infra.db.url import to_sqlalchemy
from app.infra.settings.environment import load
from app.server.schema import metadata

LOCK = 0x6167656E74  # "agent": the advisory lock that lets one migrate while others wait
WAIT_SECONDS = 900.0
POLL_SECONDS = 0.2


def address() -> str:
    """The owner's address: handed over by the caller, by ``alembic -x url=…``, or of the environment."""
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    if given:
        return str(given)
    owner = load().database.owner_url
    if owner is None:
        raise UsageError("set MIGRATE_DATABASE_URL or DATABASE_URL to the database to migrate")
    return owner.reveal()


def migrate(connection: Connection) -> None:
    """Apply what is asked for over ``connection``."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def take_turn(connection: AsyncConnection) -> None:
    """Wait until no other process migrates; for one that is stuck not for ever.

    Asked again and again: a statement that waited inside the database would hold a snapshot, for which a concurrent
    build of an index waits in its turn.
    """
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await connection.scalar(sa.text("select pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
                await connection.commit()
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise StartError("another process migrates; try again when it is done") from error


async def online() -> None:
    """Take the lock, then migrate."""
    url, arguments = to_sqlalchemy(address())
    named = {"application_name": "agent-service migrate"}
    engine = create_async_engine(url, connect_args={**arguments, "timeout": 5, "server_settings": named})
    try:
        async with engine.connect() as connection:
            # a long migration is not cut off
            await connection.execute(sa.text("set statement_timeout = 0"))
            await take_turn(connection)
            # a statement that cannot have its lock soon must not hold up the traffic behind it
            await connection.execute(sa.text("set lock_timeout = '10s'"))
            await connection.commit()
            await connection.run_sync(migrate)
            await connection.commit()
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise CommandError("these migrations run against a database: leave out --sql")
try:
    asyncio.run(online())
except StartError as error:  # Alembic's command prints its own errors as one line
    raise CommandError(str(error)) from error
