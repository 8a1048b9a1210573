"""A database and servers with test agents, for measurements."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from bench.processes import Server, free_port, serving
from bench.starting import READY

AGENT = """
import asyncio, time
from app.agents.function import Context

async def run(context: Context, input: dict) -> None:
    for _ in range(input.get("count", 0)):
        context.emit(time.time())
        await asyncio.sleep(0.01)
    await asyncio.sleep(input.get("rest", 0))
"""


class Postgres(msgspec.Struct, frozen=True):
    """The server's PostgreSQL, with the superuser's URL."""

    url: str
    pid: int
    log: Path


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run the embedded PostgreSQL in ``folder`` with the server's schema."""
    database = EmbeddedDatabase(folder)
    try:
        url = database.start()
        migrations.upgrade(url)
        pid = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        yield Postgres(url, pid, folder / "postgres.log")
    finally:
        database.stop()


@contextlib.contextmanager
def server(url: str, folder: Path, more: str = "", **settings: str) -> Iterator[Server]:
    """``serve`` with the agents ``echo`` and ``clock``, and ``more`` of an agents file."""
    port = free_port()
    agents = folder / "agents.toml"
    agents.write_text('[agents.echo]\nmodel = "scripted:echo"\n[agents.clock]\nfunction = "./clock.py:run"\n' + more)
    (folder / "clock.py").write_text(AGENT)
    own = {
        "DATABASE_URL": url,
        "AGENT_AUTH": "none",
        "PORT": str(port),
        "LOG_LEVEL": "warning",
        "AGENT_CONFIG": str(agents),
    }
    with serving([sys.executable, "-m", "app", "serve"], port, READY, folder, **{**own, **settings}) as running:
        yield running


def base(running: Server) -> str:
    return f"http://127.0.0.1:{running.port}/api/v1"
