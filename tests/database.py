"""The tests' PostgreSQL: one real server for the whole run, databases cloned from a migrated template."""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import sqlalchemy as sa

from app.base.errors import StartError
from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from app.infra.db.folder_lock import FolderLock

TEMPLATE = "migrated"
FOLDERS = "agent-tests-"
STALE_SECONDS = 600.0

FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
"""No test crashes this server; tests of durability start their own."""

SET_SCOPE = sa.text("select set_config('app.tenant', :tenant, true), set_config('app.key_id', :key, true)")


def at(url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    server, _, query = url.partition("?")
    return f"{server.rpartition('/')[0]}/{database}?{query}"


def name_of(url: str) -> str:
    """Return the database name of ``url``."""
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
    """Set the end of a run to more than a day ago; triggers are disabled meanwhile, which needs a superuser."""
    ended = f"update runs set ended_at = now() - interval '25 hours' where run_id = '{run_id}'"
    await execute(url, "set session_replication_role = replica", ended)


@contextlib.contextmanager
def hasty_server(origin: Path | None = None) -> Iterator[str]:
    """Run a temporary server, fast and not durable; yield the superuser's URL.

    ``origin``: folder of a stopped server to copy.
    """
    folder = Path(tempfile.mkdtemp(prefix=FOLDERS))
    if origin is not None:
        subprocess.run(["cp", "-a", f"{origin}/.", str(folder)], check=True)
    server = EmbeddedDatabase(folder, FAST_SETTINGS)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def server_with_template() -> Iterator[str]:
    """Run the test server with a migrated template database."""
    remove_stale_folders()
    with hasty_server() as url:
        asyncio.run(execute(url, f"create database {TEMPLATE}"))
        migrations.upgrade(at(url, TEMPLATE))
        asyncio.run(execute(url, f"alter database {TEMPLATE} is_template true"))
        yield url


def remove_stale_folders() -> None:
    """Remove folders of killed test runs; running ones hold the lock of theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        lock = FolderLock(folder)
        with contextlib.suppress(OSError, StartError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                lock.take()
                shutil.rmtree(folder, ignore_errors=True)
        lock.release()


async def create(url: str) -> str:
    """Create a database without migrations; return its URL."""
    name = f"empty_{uuid4().hex[:12]}"
    await execute(url, f"create database {name}")
    return at(url, name)


async def clone(url: str) -> str:
    """Clone the template (some 20 ms); return the URL."""
    name = f"test_{uuid4().hex[:12]}"
    await execute(url, f"create database {name} template {TEMPLATE} strategy file_copy")
    return at(url, name)


async def drop(url: str, database_url: str) -> None:
    """Drop a database, also while clients are connected."""
    await execute(url, f"drop database if exists {name_of(database_url)} with (force)")
