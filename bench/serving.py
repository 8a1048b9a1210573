"""Servers of this program on one database, for measurements with agents of their own."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

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
