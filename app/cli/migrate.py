"""``agent-service migrate``: Alembic's upgrade to head, under an advisory lock."""

import argparse
import asyncio

from app.base.errors import UsageError


def declare(_: argparse.ArgumentParser) -> None:
    """No arguments: the database is that of the environment."""


def run(_: argparse.Namespace) -> int:
    """Apply what is pending and say what it was."""
    from app.db.migrate import head, pending, upgrade
    from app.settings import load

    owner = load().database.owner_url
    if owner is None:
        raise UsageError("set MIGRATE_DATABASE_URL (its owner's) or DATABASE_URL to the database to migrate")
    url = owner.reveal()
    lacking = asyncio.run(pending(url))
    if lacking:
        upgrade(url)
    print(f"applied {', '.join(lacking)}" if lacking else "nothing to do", f"(schema {head()})")
    return 0
