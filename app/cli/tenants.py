"""``agent-service tenants``: what a tenant may use, and what it has used."""

import argparse
from typing import Any

from app.base.errors import UsageError
from app.cli.opened import with_access
from app.cli.output import table
from app.cli.parsing import sub_command


def declare(parser: argparse.ArgumentParser) -> None:
    """limits, usage."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    limits = sub_command(
        actions, "limits", "show or change a tenant's own limits", "tenants limits acme --set rate_per_minute=600"
    )
    limits.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="in place of the setting; 0: no limit"
    )
    limits.add_argument("--create", action="store_true", help="make the tenant, if it is new")
    limits.add_argument("--unset", action="append", default=[], metavar="NAME", help="as the setting says again")
    usage = sub_command(actions, "usage", "what a tenant has spent on models, by day", "tenants usage acme")
    for action in (limits, usage):
        action.add_argument("tenant", metavar="TENANT", help="its name, as keys create has it")


def run(arguments: argparse.Namespace) -> int:
    """Do it and print how things stand."""
    if arguments.action == "usage":
        days = with_access(lambda access: _spending(access, arguments.tenant))
        spent = [(f"{day.day}", f"{day.spent:.4f}", f"{day.reserved:.4f}", str(day.tokens)) for day in days]
        print(table(("DAY (UTC)", "DOLLARS", "RESERVED", "TOKENS"), spent))
        return 0
    own = with_access(lambda access: _changed(access, arguments))
    rows = [(name, "as the setting says" if value is None else f"{value:g}") for name, value in own.items()]
    print(table(("LIMIT", "VALUE"), rows))
    return 0


async def _spending(access: Any, tenant: str) -> Any:
    await access.check_tenant(tenant)
    return await access.spending(tenant)


async def _changed(access: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    import msgspec

    from app.access.structs import DEFAULT_TENANT_NAME
    from app.base.errors import NotFound
    from app.limits.structs import Own

    try:
        own = msgspec.structs.asdict(await access.limits_of(arguments.tenant))
    except NotFound as error:
        if arguments.tenant != DEFAULT_TENANT_NAME and not arguments.create:
            raise NotFound(f"{error} Or make it with --create.") from error
        own = msgspec.structs.asdict(Own())
    changes: dict[str, Any] = dict.fromkeys(arguments.unset)
    for text in arguments.set:
        name, given, value = text.partition("=")
        if not given:
            raise UsageError(f"--set must be NAME=NUMBER, not {text!r}")
        changes[name] = value
    if unknown := sorted(changes.keys() - own.keys()):
        raise UsageError(f"there is no limit {unknown[0]!r}: use {', '.join(own)}")
    try:
        limits = msgspec.convert(own | changes, Own, strict=False)
        if any(not 0 <= (value or 0) < float("inf") for value in msgspec.structs.astuple(limits)):
            raise ValueError("a limit is never below 0")
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"--set: {error}") from error
    if changes:
        await access.set_limits(arguments.tenant, limits)
    return msgspec.structs.asdict(limits)
