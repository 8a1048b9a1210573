"""``agent-service serve``: the production server. Refuses to start with what would hurt later."""

import argparse
import asyncio
from typing import Any

from app.base.errors import StartError, UsageError
from app.cli.apart import apart
from app.server import Listening, serve
from app.settings import Settings, check_serving, load

ROLES = ("all", "api", "worker")


def declare(parser: argparse.ArgumentParser) -> None:
    """Where, and with how many workers."""
    parser.epilog = "example: DATABASE_URL=postgresql://… AGENT_KEY_PEPPER=… agent-service serve --workers 2"
    parser.add_argument("--host", help="the address to listen on (HOST, 127.0.0.1)")
    parser.add_argument("--port", help="the port to listen on (PORT, 8000)")
    parser.add_argument("--workers", help="worker processes (WORKERS, 1)")
    parser.add_argument("--agents", metavar="FILE", help="the agents file (AGENT_CONFIG, agents.toml)")
    parser.add_argument("--role", choices=ROLES, default="all", help="what this process does (all)")


def run(arguments: argparse.Namespace) -> int:
    """Check, then serve until a signal comes."""
    if arguments.role != "all":
        raise UsageError(f"--role {arguments.role} is not built yet; leave it out")
    given = {"HOST": arguments.host, "PORT": arguments.port, "WORKERS": arguments.workers, "AGENT_CONFIG": arguments.agents}
    settings = load(overrides={name: value for name, value in given.items() if value is not None})
    check_serving(settings)
    apart(lambda: check(settings))
    listening = Listening(
        host=settings.server.host,
        port=settings.server.port,
        workers=settings.server.workers,
        drain_seconds=settings.runs.drain_seconds,
    )
    serve(listening, lambda: application(settings))
    return 0


def application(settings: Settings) -> Any:
    """The application, imported in the worker that runs it."""
    from app.asgi import create_app

    return create_app(settings)


def check(settings: Settings) -> None:
    """Everything that can be known before a worker starts. Raises ``StartError``."""
    from app.db import migrate
    from app.db.engine import Database
    from app.wiring import build

    assert settings.database.url is not None
    assert settings.database.owner_url is not None
    url, owner = settings.database.url.reveal(), settings.database.owner_url.reveal()

    async def look() -> None:
        lacking = await migrate.pending(url)
        if lacking:
            raise StartError(
                f"the database lacks the migrations {', '.join(lacking)}: run `agent-service migrate`, or set "
                f"AGENT_MIGRATE_ON_START=1"
            )
        database = Database(url, requests=1, engine=1)
        try:
            await database.check()
        finally:
            await database.aclose()
        house = build(settings)
        await house.models.aclose()
        await house.database.aclose()

    if settings.database.migrate_on_start:
        migrate.upgrade(owner)
    asyncio.run(look())
