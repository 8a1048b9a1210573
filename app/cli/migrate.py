"""``agent-service migrate``: Alembic's upgrade to head, under an advisory lock."""

import argparse
import asyncio

from app.base.errors import UsageError
from app.db import migrate
from app.settings import load


def declare(parser: argparse.ArgumentParser) -> None:
    """No arguments: the database is that of the environment."""
    parser.epilog = "example: MIGRATE_DATABASE_URL=postgresql://owner:…@host/agents agent-service migrate"


def run(_: argparse.Namespace) -> int:
    """Apply what is pending and say what it was."""
    owner = load().database.owner_url
    if owner is None:
        raise UsageError("set MIGRATE_DATABASE_URL (the owner) or DATABASE_URL to the database to migrate")
    url = owner.reveal()
    lacking = asyncio.run(migrate.pending(url))
    if lacking:
        migrate.upgrade(url)
    print(f"applied {', '.join(lacking)}" if lacking else "nothing to do", f"(schema {migrate.head()})")
    return 0
