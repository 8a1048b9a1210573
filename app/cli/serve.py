"""``agent-service serve``: the production server. Refuses to start with what would hurt later."""

import argparse
from typing import Any

from app.base.errors import UsageError
from app.cli.apart import apart
from app.serving.events import sayer
from app.serving.listening import listen
from app.serving.parent import Parent
from app.serving.station import Station

ROLES = ("all", "api", "worker")

GRACE_SECONDS = 10.0
"""What a worker gets beyond its drain before it is killed."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Where, and with how many workers."""
    parser.epilog = "example: DATABASE_URL=postgresql://… AGENT_KEY_PEPPER=… agent-service serve --workers 2"
    parser.add_argument("--host", help="the address to listen on (HOST, 127.0.0.1)")
    parser.add_argument("--port", metavar="N", help="the port to listen on (PORT, 8000)")
    parser.add_argument("--workers", metavar="N", help="worker processes (WORKERS, 1)")
    parser.add_argument("--agents", metavar="FILE", help="the agents file (AGENT_CONFIG, agents.toml)")
    parser.add_argument("--role", choices=ROLES, default="all", help="what this process does (all)")


def run(arguments: argparse.Namespace) -> int:
    """Check, then serve until a signal comes."""
    if arguments.role != "all":
        raise UsageError(f"--role {arguments.role} is not built yet; leave it out")
    overrides = words_of(arguments, HOST="host", PORT="port", WORKERS="workers", AGENT_CONFIG="agents")
    plan = apart(lambda: prepare(overrides))

    def work(station: Station) -> int:
        from app.cli.service import work

        return work(station, overrides, {})

    listeners = listen(plan["host"], plan["port"], plan["workers"])
    return Parent(listeners, work, grace=plan["drain"] + GRACE_SECONDS, say=sayer(plan["log_format"])).run()


def words_of(arguments: argparse.Namespace, **names: str) -> dict[str, str]:
    """The arguments that were given, by the settings they stand for: they win over the environment."""
    given = {setting: getattr(arguments, name) for setting, name in names.items()}
    return {setting: text for setting, text in given.items() if text is not None}


def prepare(overrides: dict[str, str]) -> dict[str, Any]:
    """Check the settings, migrate when they say so, and pick what the parent needs: it must not load all this itself."""
    from app.settings import check_serving, load

    settings = load(overrides=overrides)
    check_serving(settings)
    if settings.database.migrate_on_start and (owner := settings.database.owner_url) is not None:
        from app.db.migrate import upgrade

        upgrade(owner.reveal())
    server = settings.server
    return {
        "host": server.host,
        "port": server.port,
        "workers": server.workers,
        "log_format": server.log_format,
        "drain": settings.runs.drain_seconds,
    }
