"""The tests' PostgreSQL: one real server for the whole run, databases cloned from a migrated template."""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NoReturn
from uuid import UUID, uuid4

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.base.errors import StartError
from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from app.infra.db.engine import APP_ROLE, Database
from app.infra.db.folder_lock import FolderLock
from app.infra.db.session import Reader
from app.infra.db.url import to_sqlalchemy

TEMPLATE = "migrated"
FOLDERS = "agent-tests-"
FORGOTTEN_SECONDS = 600.0

HASTE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
"""No test pulls the plug of this server; those about durability start one of their own."""

SET_SCOPE = sa.text("select set_config('app.tenant', :tenant, true), set_config('app.key_id', :key, true)")


def at(url: str, database: str) -> str:
    """The same server's ``database``."""
    server, _, query = url.partition("?")
    return f"{server.rpartition('/')[0]}/{database}?{query}"


def name_of(url: str) -> str:
    """The database that ``url`` names."""
    return url.partition("?")[0].rpartition("/")[2]


async def execute(url: str, *statements: str) -> None:
    """Run ``statements`` one by one as the superuser."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def age(url: str, run_id: str) -> None:
    """Let a run have ended more than a day ago; a superuser may, with the guards of the table asleep."""
    ended = f"update runs set ended_at = now() - interval '25 hours' where run_id = '{run_id}'"
    await execute(url, "set session_replication_role = replica", ended)


@contextlib.contextmanager
def hasty_server(origin: Path | None = None) -> Iterator[str]:
    """A server of its own that is quick and not durable; nothing is left of it. Gives the superuser's address.

    It begins as a copy of the folder ``origin`` of a stopped server, if one is given.
    """
    folder = Path(tempfile.mkdtemp(prefix=FOLDERS))
    if origin is not None:
        subprocess.run(["cp", "-a", f"{origin}/.", str(folder)], check=True)
    server = EmbeddedDatabase(folder, HASTE)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def server_with_template() -> Iterator[str]:
    """The server of a run of tests, with the template that the migrations built."""
    remove_forgotten()
    with hasty_server() as url:
        asyncio.run(execute(url, f"create database {TEMPLATE}"))
        migrations.upgrade(at(url, TEMPLATE))
        asyncio.run(execute(url, f"alter database {TEMPLATE} is_template true"))
        yield url


def remove_forgotten() -> None:
    """Remove what runs that were killed have left; those that go on hold the lock of their folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        lock = FolderLock(folder)
        with contextlib.suppress(OSError, StartError):
            if time.time() - folder.stat().st_mtime > FORGOTTEN_SECONDS:
                lock.take()
                shutil.rmtree(folder, ignore_errors=True)
        lock.release()


async def create(url: str) -> str:
    """A new database without any migration; its address."""
    name = f"empty_{uuid4().hex[:12]}"
    await execute(url, f"create database {name}")
    return at(url, name)


async def clone(url: str) -> str:
    """A new database like the template (some 20 ms); its address."""
    name = f"test_{uuid4().hex[:12]}"
    await execute(url, f"create database {name} template {TEMPLATE} strategy file_copy")
    return at(url, name)


async def drop(url: str, database_url: str) -> None:
    """Remove a database, whoever is still connected."""
    await execute(url, f"drop database if exists {name_of(database_url)} with (force)")


class RolledBack(Database):
    """``Database`` as requests use it, on one transaction that nobody commits: each of theirs is a savepoint.

    They take turns, and ``now()`` stands still. The engine needs a database of its own.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def _scoped(self, tenant: str = "", key: str = "") -> AsyncIterator[AsyncConnection]:
        async with self._turn, self._connection.begin_nested():
            await self._connection.execute(SET_SCOPE, {"tenant": tenant, "key": key})
            yield self._connection

    @contextlib.asynccontextmanager
    async def _transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
        async with self._scoped(tenant=str(tenant_id)) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def looking_up(self, key_ids: Sequence[str]) -> AsyncIterator[Reader]:
        async with self._scoped(key=",".join(key_ids)) as connection:
            yield Reader(connection)

    def engine_connection(self) -> NoReturn:
        raise AssertionError("the engine needs fresh_database_url")


@contextlib.asynccontextmanager
async def rolled_back(url: str) -> AsyncIterator[RolledBack]:
    """A database at ``url`` whose changes are gone afterwards."""
    address, arguments = to_sqlalchemy(url)
    settings = {"server_settings": {"role": APP_ROLE}}
    engine = create_async_engine(address, poolclass=sa.NullPool, connect_args={**arguments, **settings})
    async with engine.connect() as connection, connection.begin() as transaction:
        yield RolledBack(connection)
        await transaction.rollback()
