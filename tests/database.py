"""The tests' PostgreSQL: one real server for the whole run, databases cloned from a migrated template."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import asyncpg

from app.db import migrate
from app.db.embedded import EmbeddedDatabase

TEMPLATE = "migrated"

HASTE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
"""No test pulls the plug of this server; those about durability start one of their own."""


def at(url: str, database: str) -> str:
    """The same server's ``database``."""
    server, _, query = url.partition("?")
    return f"{server.rpartition('/')[0]}/{database}?{query}"


async def execute(url: str, *statements: str) -> None:
    """Run ``statements`` one by one as the superuser."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class Server:
    """A server for a run of tests, and how its databases are made."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agent-tests-"))
        self._embedded = EmbeddedDatabase(self.folder, HASTE)
        self.url = ""

    def start(self) -> None:
        """Start it and build the template by the migrations."""
        self.url = self._embedded.start()
        asyncio.run(execute(self.url, f"create database {TEMPLATE}"))
        migrate.upgrade(at(self.url, TEMPLATE))
        asyncio.run(execute(self.url, f"alter database {TEMPLATE} is_template true"))

    def stop(self) -> None:
        """Stop it and leave nothing behind."""
        self._embedded.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


async def clone(url: str) -> str:
    """A new database like the template (some 50 ms); its address."""
    name = f"test_{uuid4().hex[:12]}"
    await execute(url, f"create database {name} template {TEMPLATE} strategy file_copy")
    return at(url, name)


async def drop(url: str, database_url: str) -> None:
    """Remove a database, whoever is still connected."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    await execute(url, f"drop database if exists {name} with (force)")
