"""``agent-service mcp``: inspect the MCP servers of agents, call their tools, accept changes; configure MCP clients."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.base.errors import StartError, UsageError
from app.cli.mcp_config import declare_config, run_config
from app.cli.terminal.output import print_styled, print_table
from app.cli.terminal.parser import sub_command

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.agents.config.agents_file import AgentsFile
    from app.agents.mcp.accounts import AccountStore
    from app.agents.mcp.servers import McpServer, McpServers
    from app.infra.settings.environment import Settings

ACTIONS = {
    "list": ("list the servers of the agents file, and whether they work", "mcp list"),
    "inspect": ("show a server's description and its tools", "mcp inspect github"),
    "call": ("call a tool of a server once", 'mcp call github search_issues \'{"query": "crash"}\''),
    "diff": ("show how tools differ from those that were accepted; exit code 1 if they do", "mcp diff github"),
    "accept": ("accept the tools of a server as they are now, for every agent that uses it", "mcp accept github"),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    added = {name: sub_command(actions, name, does, example) for name, (does, example) in ACTIONS.items()}
    for name, action in added.items():
        if name == "diff":
            action.add_argument(
                "server", metavar="SERVER", nargs="?", help="its name in the agents file (default: all)"
            )
        elif name != "list":
            action.add_argument("server", metavar="SERVER", help="its name in the agents file")
        action.add_argument("--agents", metavar="FILE", help="the agents file (default: AGENT_CONFIG, or agents.toml)")
    added["call"].add_argument("tool", metavar="TOOL", help="the tool's name at the server")
    added["call"].add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="its arguments (default: {})")
    declare_config(actions)
    added["accept"].add_argument("--agent", metavar="AGENT", help="for this agent only")
    for name in ("diff", "accept"):
        whose = "where people sign in: with the account of"
        added[name].add_argument("--tenant", default="default", help=f"{whose} this tenant (default: default)")
        added[name].add_argument("--user", default="", help=f"{whose} this user of the tenant")


def run(arguments: argparse.Namespace) -> int:
    """Run one action; exit code 1 if a server does not work, a call fails, or tools differ."""
    from app.cli.database_access import database_settings
    from app.infra.settings.environment import load

    if arguments.action == "config":
        return run_config(arguments)
    _quiet()
    if arguments.action in {"diff", "accept"}:
        with database_settings() as settings:
            return asyncio.run(_with_pins(arguments, settings))
    return asyncio.run(_without_pins(arguments, load()))


def _quiet() -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@asynccontextmanager
async def _servers(
    arguments: argparse.Namespace, settings: "Settings", accounts: "AccountStore | None" = None
) -> AsyncIterator[tuple["AgentsFile", "McpServers"]]:
    """Read the agents file and make its servers, which are closed after the block."""
    from app.agents.config.agents_file import read
    from app.cli.agent_checks import mcp_servers

    file = read(arguments.agents or settings.agents.config)
    if not file.mcp:
        raise UsageError(f"{file.source} has no MCP servers: define one in a table [mcp.NAME]")
    servers = mcp_servers(settings, file, accounts)
    try:
        yield file, servers
    finally:
        await servers.aclose()


async def _reached(servers: "McpServers", name: str) -> "McpServer":
    server = servers.get(name)
    if not await server.probe():
        raise StartError(f"the MCP server {name!r}: {server.problem}")
    return server


async def _without_pins(arguments: argparse.Namespace, settings: "Settings") -> int:
    async with _servers(arguments, settings) as (file, servers):
        if arguments.action == "list":
            return await _list(file, servers)
        server = await _reached(servers, arguments.server)
        return await (_inspect(server) if arguments.action == "inspect" else _call(server, arguments))


async def _list(file: "AgentsFile", servers: "McpServers") -> int:
    found = [servers.get(name) for name in file.mcp]
    works = await asyncio.gather(*(server.probe() for server in found))
    rows = [
        (
            server.name,
            server.spec.url or " ".join(server.spec.command),
            server.spec.scope,
            str(len(server.listed)) if reached and server.spec.oauth is None else "-",
            server.problem or ("works" if server.spec.oauth is None else "people sign in"),
        )
        for server, reached in zip(found, works, strict=True)
    ]
    print_table(("NAME", "AT", "SCOPE", "TOOLS", "STATE"), rows, numbers=("TOOLS",))
    return 0 if all(works) else 1


async def _inspect(server: "McpServer") -> int:
    import msgspec

    from app.agents.mcp.pins import visible
    from app.agents.mcp.spec import shown_name

    async with server.using() as connection:
        about = msgspec.json.format(msgspec.json.encode(connection.about()), indent=2).decode()
    print("\n".join(map(visible, about.splitlines())))
    print()
    rows = [
        (
            visible(name),
            shown_name(server.name, name),
            str(server.spec.class_of(name)),
            f"{server.spec.timeout_of(name):g} s",
            visible(str(tool.get("description") or "").partition("\n")[0]),
        )
        for name, tool in server.listed.items()
    ]
    print_table(("TOOL", "MODELS CALL IT", "CLASS", "TIMEOUT", "DESCRIPTION"), rows)
    return 0


async def _call(server: "McpServer", arguments: argparse.Namespace) -> int:
    import msgspec

    from app.agents.mcp.tool import no_answer, no_progress
    from app.agents.tools.remote import LostConnection, ServerAway, ServerError

    if arguments.tool not in server.listed:
        raise UsageError(f"the server has no tool {arguments.tool!r}: it has {', '.join(server.listed) or 'none'}")
    try:
        given = msgspec.json.decode(arguments.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"the arguments must be a JSON object: {error}") from error
    try:
        async with asyncio.timeout(server.spec.timeout_of(arguments.tool)), server.using() as connection:
            raw = await connection.call_tool(arguments.tool, given, {}, no_progress, no_answer)
    except (ServerAway, LostConnection, ServerError) as error:
        raise StartError(f"the call failed: {error}") from error
    except TimeoutError:
        raise StartError("the server did not answer in time") from None
    print(msgspec.json.format(msgspec.json.encode(raw), indent=2).decode())
    return 1 if raw.get("isError") else 0


async def _with_pins(arguments: argparse.Namespace, settings: "Settings") -> int:
    from app.agents.mcp.account_store import DatabaseAccounts
    from app.agents.mcp.pin_store import DatabasePins
    from app.cli.database_access import open_database
    from app.server.composition.mcp import sealing_secrets

    url = settings.database.url
    assert url is not None
    async with open_database(url) as (database, audit):
        accounts = DatabaseAccounts(database, lambda: sealing_secrets(settings))
        return await _compare(arguments, settings, DatabasePins(database, audit), accounts)


async def _listed(arguments: argparse.Namespace, servers: "McpServers", name: str) -> Any:
    """Return the tools that a server lists, for the account that the arguments name where people sign in."""
    from app.agents.mcp.accounts import Account, SignInNeeded
    from app.agents.tools.remote import LostConnection, ServerAway, ServerError
    from app.security.access.structs import tenant_id_of

    server = servers.get(name)
    if server.spec.oauth is None:
        return (await _reached(servers, name)).listed
    account = Account(tenant_id_of(arguments.tenant), name, arguments.user)
    try:
        return await server.listed_for(account)
    except SignInNeeded:
        reason = f"{account.about} has not signed in: start a run that uses it, or name who has (--tenant, --user)"
        raise StartError(f"the MCP server {server.name!r}: {reason}") from None
    except (ServerAway, LostConnection, ServerError) as error:
        raise StartError(f"the MCP server {server.name!r}: {error}") from error


async def _compare(arguments: argparse.Namespace, settings: "Settings", pins: Any, accounts: "AccountStore") -> int:
    """Show the differences for each agent, and accept them if asked to."""
    from app.agents.mcp.pins import differences
    from app.cli.agent_checks import servers_of

    differ = 0
    async with _servers(arguments, settings, accounts) as (file, servers):
        uses = [
            (agent, server)
            for agent, spec in file.agents.items()
            for server in servers_of(spec.tools)
            if arguments.server in {None, server} and getattr(arguments, "agent", None) in {None, agent}
        ]
        if not uses:
            raise UsageError(f"no agent of {file.source} uses that server")
        found = {name: await _listed(arguments, servers, name) for name in dict.fromkeys(name for _, name in uses)}
        for agent, name in uses:
            listed = found[name]
            accepted, version = await pins.newest(agent, name)
            lines = list(differences(accepted, listed))
            for line in lines:
                print_styled((line, {"+": "green", "-": "red"}.get(line[:1], "")))
            differ += bool(lines)
            if arguments.action == "accept" and lines:
                version = await pins.accept(agent, name, listed, version)
            state = "accepted as" if arguments.action == "accept" and lines else "differs from" if lines else "is"
            print(f"{agent}: {name} {state} version {version}" if version else f"{agent}: {name} was never accepted")
    return 1 if differ and arguments.action == "diff" else 0
