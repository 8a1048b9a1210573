"""How Alembic reaches the database: as its owner, one transaction a revision, never waiting long for a lock."""

import asyncio

import sqlalchemy as sa
from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import UsageError
from app.db.url import to_sqlalchemy
from app.schema import metadata
from app.settings import load

LOCK = 0x6167656E74  # "agent": the advisory lock that lets one migrate while others wait


def address() -> str:
    """The owner's address: handed over by the caller, or of the environment."""
    given = context.config.attributes.get("url")
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


async def online() -> None:
    """Take the lock, then migrate."""
    url, arguments = to_sqlalchemy(address())
    engine = create_async_engine(url, connect_args={**arguments, "timeout": 5})
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text("select pg_advisory_lock(:lock)"), {"lock": LOCK})
            # a statement that cannot have its lock soon must not hold up the traffic behind it
            await connection.execute(sa.text("set lock_timeout = '10s'"))
            await connection.commit()
            await connection.run_sync(migrate)
            await connection.commit()
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise UsageError("these migrations run against a database: leave out --sql")
asyncio.run(online())
