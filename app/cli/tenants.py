"""``agent-service tenants``: limits and usage of a tenant."""

import argparse
from typing import Any

from app.base.errors import UsageError
from app.cli.database_access import with_access
from app.cli.terminal.output import print_table
from app.cli.terminal.parser import sub_command


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions limits and usage."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    limits = sub_command(
        actions, "limits", "show or change a tenant's own limits", "tenants limits acme --set rate_per_minute=600"
    )
    limits.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="override the setting; 0: no limit"
    )
    limits.add_argument("--bytes", metavar="SIZE", help="its storage limit, like 10GiB; the same as --set bytes=SIZE")
    limits.add_argument("--create", action="store_true", help="create the tenant if it does not exist")
    limits.add_argument("--unset", action="append", default=[], metavar="NAME", help="remove an override")
    usage = sub_command(
        actions, "usage", "show a tenant's spending on models by day, and its storage", "tenants usage acme"
    )
    for action in (limits, usage):
        action.add_argument("tenant", metavar="TENANT", help="its name, as keys create has it")


def run(arguments: argparse.Namespace) -> int:
    """Run the action and print the limits or the usage."""
    if arguments.action == "usage":
        days, stored, limit = with_access(lambda access: _read_usage(access, arguments.tenant))
        spent = [(f"{day.day}", f"{day.spent:.4f}", f"{day.reserved:.4f}", str(day.tokens)) for day in days]
        print_table(("DAY (UTC)", "DOLLARS", "RESERVED", "TOKENS"), spent, numbers=("DOLLARS", "RESERVED", "TOKENS"))
        if stored is not None:
            _show_stored(stored, limit)
        return 0
    own = with_access(lambda access: _change_limits(access, arguments))
    rows = [(name, "as the setting says" if value is None else _shown(name, value)) for name, value in own.items()]
    print_table(("LIMIT", "VALUE"), rows)
    return 0


def _shown(name: str, value: float) -> str:
    from app.base.byte_sizes import show_size

    return f"{value} ({show_size(value)})" if name == "bytes" and value else f"{value:g}"


def _show_stored(stored: Any, limit: int) -> None:
    """Print a tenant's storage by kind, largest first, and its limit."""
    from app.base.byte_sizes import show_size

    kinds = sorted(stored.by_kind.items(), key=lambda one: -one[1])
    used = f"{show_size(stored.bytes)} of {show_size(limit)} ({stored.bytes / limit:.0%})" if limit else "no limit"
    rows = [*((kind, show_size(count)) for kind, count in kinds), ("all", used)]
    print()
    print_table((f"STORED ({stored.measured_at:%Y-%m-%d %H:%M} UTC)", "SIZE"), rows)


async def _read_usage(access: Any, tenant: str) -> Any:
    """Return the tenant's spending, its storage, and its storage limit (0: no limit)."""
    from app.base.errors import NotFound
    from app.infra.settings.environment import load
    from app.security.limits.structs import TenantLimits

    await access.check_tenant(tenant)
    try:
        own = await access.limits_of(tenant)
    except NotFound:  # the default tenant, without limits of its own
        own = TenantLimits()
    limit = load().limits.bytes if own.bytes is None else own.bytes
    return await access.spending(tenant), await access.stored(tenant), limit


async def _change_limits(access: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Apply the changes in ``arguments`` and return the tenant's limits. Raises ``NotFound``, ``UsageError``."""
    import msgspec

    from app.base.byte_sizes import parse_size
    from app.base.errors import NotFound
    from app.security.access.structs import DEFAULT_TENANT_NAME
    from app.security.limits.structs import TenantLimits

    try:
        own = msgspec.structs.asdict(await access.limits_of(arguments.tenant))
    except NotFound as error:
        if arguments.tenant != DEFAULT_TENANT_NAME and not arguments.create:
            raise NotFound(f"{error} Or create it with --create.") from error
        own = msgspec.structs.asdict(TenantLimits())
    changes: dict[str, Any] = dict.fromkeys(arguments.unset)
    for text in [*arguments.set, *([f"bytes={arguments.bytes}"] if arguments.bytes is not None else [])]:
        name, given, value = text.partition("=")
        if not given:
            raise UsageError(f"--set must be NAME=NUMBER, not {text!r}")
        changes[name] = value
    if unknown := sorted(changes.keys() - own.keys()):
        raise UsageError(f"there is no limit {unknown[0]!r}: use {', '.join(own)}")
    try:
        if changes.get("bytes"):
            changes["bytes"] = parse_size(changes["bytes"])
        limits = msgspec.convert(own | changes, TenantLimits, strict=False)
        if any(not 0 <= (value or 0) < float("inf") for value in msgspec.structs.astuple(limits)):
            raise ValueError("a limit must not be negative")
    except (ValueError, msgspec.ValidationError) as error:
        option = "--bytes" if arguments.bytes is not None and not arguments.set else "--set"
        raise UsageError(f"{option}: {error}") from error
    if changes:
        await access.set_limits(arguments.tenant, limits)
    return msgspec.structs.asdict(limits)
