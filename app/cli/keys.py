"""``agent-service keys``: API keys. A secret is printed once, when it is made."""

import argparse
import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from app.access.service import AccessService
from app.access.structs import DEFAULT_TENANT_NAME, KeyInfo
from app.base.clock import now
from app.base.errors import UsageError
from app.cli.output import table
from app.db.engine import Database
from app.settings import load

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Result = TypeVar("Result")


def declare(parser: argparse.ArgumentParser) -> None:
    """create, list, revoke."""
    parser.epilog = "example: agent-service keys create --name ci --expires 90d"
    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = verbs.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", required=True, help="what the key is for")
    create.add_argument("--expires", metavar="90d", help="how long it lives: a number and m, h, d or w (for ever)")
    listing = verbs.add_parser("list", help="list a tenant's keys, without their secrets")
    revoke = verbs.add_parser("revoke", help="void a key")
    revoke.add_argument("key_id", metavar="ID", help="the public part of the key")
    for verb in (create, listing, revoke):
        verb.add_argument("--tenant", default=DEFAULT_TENANT_NAME, help="the tenant (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Do it and print what came of it."""
    if arguments.action == "create":
        lifetime = lifetime_of(arguments.expires)
        info, key = _with_access(
            lambda access: access.create_key(arguments.name, tenant=arguments.tenant, expires_in=lifetime)
        )
        print(key.reveal())
        print(f"key {info.key_id} of tenant {arguments.tenant}: keep it now, it is not shown again", file=sys.stderr)
    elif arguments.action == "list":
        found = _with_access(lambda access: access.list_keys(arguments.tenant))
        print(table(("ID", "NAME", "CREATED", "STATE"), [_row(info) for info in found]))
    else:
        _with_access(lambda access: access.revoke_key(arguments.key_id, arguments.tenant))
        print(f"key {arguments.key_id} is refused everywhere within 5 seconds")
    return 0


def lifetime_of(text: str | None) -> timedelta | None:
    """``90d`` as a time span. Raises ``UsageError``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--expires must be a number and m, h, d or w, like 90d, not {text!r}")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def _with_access(use: Callable[[AccessService], Awaitable[Result]]) -> Result:
    settings = load()
    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to the database of the server")
    if settings.auth.key_pepper is None:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to that of the server")
    url, pepper = settings.database.url.reveal(), settings.auth.key_pepper

    async def work() -> Result:
        database = Database(url, requests=1, engine=1)
        try:
            return await use(AccessService(database, pepper))
        finally:
            await database.aclose()

    return asyncio.run(work())


def _row(info: KeyInfo) -> tuple[str, str, str, str]:
    state = "live"
    if info.revoked_at is not None:
        state = "revoked"
    elif info.expires_at is not None:
        state = "expired" if info.expires_at < now() else f"expires {info.expires_at:%Y-%m-%d}"
    return info.key_id, info.name, f"{info.created_at:%Y-%m-%d}", state
