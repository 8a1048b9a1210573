"""``agent-service keys``: manage API keys. A secret is printed only once, when it is created."""

import argparse
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from app.base.errors import UsageError
from app.cli.database_access import with_access
from app.cli.terminal.output import print_table
from app.cli.terminal.parser import sub_command

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions create, list, rotate and revoke."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    create = sub_command(
        actions,
        "create",
        "create a key and print it, only this once",
        "keys create --name ci --tenant acme --expires 90d",
    )
    create.add_argument("--name", required=True, help="what the key is for")
    create.add_argument("--expires", metavar="TIME", help="lifetime: a number and m, h, d or w (default: unlimited)")
    create.add_argument("--role", default="member", help="read-only, runner, member (default), operator or admin")
    create.add_argument("--user", default="", help="the user on whose behalf it acts inside the tenant")
    listing = sub_command(actions, "list", "list a tenant's keys, without their secrets", "keys list --tenant acme")
    revoke = sub_command(actions, "revoke", "revoke a key, everywhere within 5 seconds", "keys revoke 1f0c…")
    rotate = sub_command(
        actions,
        "rotate",
        "give a key a new secret; the old one stays valid for a while",
        "keys rotate 1f0c… --keep 2h",
    )
    rotate.add_argument(
        "--keep",
        metavar="TIME",
        default="24h",
        help="how long the old secret stays valid (default: 24h; 0: not at all)",
    )
    for action in (rotate, revoke):
        action.add_argument("key_id", metavar="ID", help="the public part of the key, as keys list shows it")
    for action in (create, listing, rotate, revoke):
        action.add_argument("--tenant", default="default", help="the tenant it belongs to (default: default)")


def run(arguments: argparse.Namespace) -> int:
    """Run the action and print its result."""
    tenant = arguments.tenant
    if arguments.action == "create":
        made, is_new = with_access(_creation(arguments))
        if is_new:
            print(f"tenant {tenant!r} is new: created with this key", file=sys.stderr)
        _show(made, tenant)
    elif arguments.action == "rotate":
        keep = timedelta() if arguments.keep == "0" else time_span("--keep", arguments.keep)
        _show(with_access(lambda access: access.rotate_key(arguments.key_id, keep, tenant)), tenant)
    elif arguments.action == "list":
        rows = [_row(info) for info in with_access(lambda access: _listed(access, tenant))]
        print_table(("ID", "NAME", "ROLE", "CREATED", "USED", "STATE"), rows)
    else:
        with_access(lambda access: access.revoke_key(arguments.key_id, tenant))
        print(f"key {arguments.key_id} is refused everywhere within 5 seconds")
    return 0


def _creation(arguments: argparse.Namespace) -> Callable[[Any], Awaitable[Any]]:
    from app.security.access.structs import ROLES

    if arguments.role not in ROLES:
        raise UsageError(f"--role must be one of {', '.join(ROLES)}, not {arguments.role!r}")
    lifetime = None if arguments.expires is None else time_span("--expires", arguments.expires)

    async def create(access: Any) -> tuple[Any, bool]:
        is_new = not await _is_known(access, arguments.tenant)
        made = await access.create_key(
            arguments.name,
            tenant=arguments.tenant,
            expires_in=lifetime,
            scopes=ROLES[arguments.role],
            user_id=arguments.user,
        )
        return made, is_new

    return create


async def _is_known(access: Any, tenant: str) -> bool:
    from app.base.errors import NotFound

    try:
        await access.check_tenant(tenant)
    except NotFound:
        return False
    return True


async def _listed(access: Any, tenant: str) -> Any:
    await access.check_tenant(tenant)
    return await access.list_keys(tenant)


def _show(made: Any, tenant: str) -> None:
    """Print only the key on standard output, for scripts; ``made`` is a ``KeyInfo`` and the key."""
    info, key = made
    print(key.reveal())
    print(f"key {info.key_id} of tenant {tenant}: store it now, it is not shown again", file=sys.stderr)


def time_span(option: str, text: str) -> timedelta:
    """Parse a time span like ``90d``. Raises ``UsageError``."""
    match = re.fullmatch(r"([1-9]\d{0,4})([mhdw])", text)
    if match is None:
        raise UsageError(f"{option} must be a number and m, h, d or w, like 90d, not {text!r}")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def _row(info: Any) -> tuple[str, ...]:
    """Format a ``KeyInfo`` as a table row."""
    from app.base.clock import now
    from app.security.access.structs import ROLES, granted

    state = "live"
    if info.revoked_at is not None:
        state = "revoked"
    elif info.expires_at is not None:
        state = f"{'expired' if info.expires_at < now() else 'expires'} {info.expires_at:%Y-%m-%d}"
    elif info.previous_until is not None and info.previous_until > now():
        state = f"live, two secrets until {info.previous_until:%Y-%m-%d %H:%M}"
    scopes = granted(info.scopes)
    role = next((name for name, given in ROLES.items() if given == scopes), "+".join(sorted(scopes)))
    used = f"{info.last_used_at:%Y-%m-%d %H:%M}" if info.last_used_at else "never"
    return info.key_id, info.name, role, f"{info.created_at:%Y-%m-%d}", used, state
