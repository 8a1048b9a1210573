"""``agent-service migrate``: run Alembic's upgrade to head under an advisory lock."""

import argparse
import asyncio

from app.base.errors import UsageError


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the database comes from the environment."""
    parser.add_argument(
        "--roles-only", action="store_true", help="only create the database roles: before a backup is restored"
    )


def run(arguments: argparse.Namespace) -> int:
    """Create missing roles, apply pending migrations and print them."""
    from app.infra.db.migrations import ROLES, ensure_roles, head, pending, upgrade
    from app.infra.settings.environment import load

    owner = load().database.owner_url
    if owner is None:
        raise UsageError("set MIGRATE_DATABASE_URL (its owner's) or DATABASE_URL to the database to migrate")
    url = owner.reveal()
    missing = asyncio.run(pending(url))
    asyncio.run(ensure_roles(url))
    if arguments.roles_only:
        print(f"the roles exist: {', '.join(ROLES)}")
        return 0
    if missing:
        upgrade(url)
    print(f"applied {', '.join(missing)}" if missing else "nothing to do", f"(schema {head()})")
    return 0
