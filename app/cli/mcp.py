"""``agent-service mcp``: inspect the MCP servers of agents, call their tools, accept changes; configure MCP clients."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.base.errors import AgentServiceError, StartError, UsageError
from app.cli.mcp_config import declare_config, run_config
from app.cli.terminal.output import print_styled, print_table
from app.cli.terminal.parser import sub_command

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.agents.config.agents_file import AgentsFile
    from app.agents.mcp.accounts import AccountStore
    from app.agents.mcp.pin_store import DatabasePins
    from app.agents.mcp.pins import ToolList
    from app.agents.mcp.servers import McpServer, McpServers, Scope
    from app.infra.settings.environment import Settings

ACTIONS = {
    "list": ("list the servers of the agents file, and whether they work", "mcp list"),
    "inspect": ("show a server's description and its tools", "mcp inspect github"),
    "call": ("call a tool of a server once", 'mcp call github search_issues \'{"query": "crash"}\''),
    "sign-in": ("sign in at a server with a browser, for the runs of a tenant or user", "mcp sign-in tracker"),
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
        if name != "list":
            whose = "where people sign in: with the account of"
            action.add_argument("--tenant", default="default", help=f"{whose} this tenant (default: default)")
            action.add_argument("--user", default="", help=f"{whose} this user of the tenant")
    added["call"].add_argument("tool", metavar="TOOL", help="the tool's name at the server")
    added["call"].add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="its arguments (default: {})")
    declare_config(actions)
    added["accept"].add_argument("--agent", metavar="AGENT", help="for this agent only")


def run(arguments: argparse.Namespace) -> int:
    """Run one action; exit code 1 if a server does not work, a call fails, or tools differ."""
    from app.agents.config.agents_file import read
    from app.cli.database_access import database_settings
    from app.infra.settings.environment import load

    if arguments.action == "config":
        return run_config(arguments)
    _quiet()
    settings = load()
    file = read(arguments.agents or settings.agents.config)
    if not file.mcp:
        raise UsageError(f"{file.source} has no MCP servers: define one in a table [mcp.NAME]")
    if not _needs_database(arguments, file):
        return asyncio.run(_without_database(arguments, settings, file))
    with database_settings() as settings:
        return asyncio.run(_with_database(arguments, settings, file))


def _needs_database(arguments: argparse.Namespace, file: "AgentsFile") -> bool:
    """Whether an action needs what is accepted, or accounts of people."""
    if arguments.action in {"inspect", "call"}:
        spec = file.mcp.get(arguments.server)
        return spec is not None and spec.oauth is not None
    return str(arguments.action) != "list"


def _quiet() -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@asynccontextmanager
async def _servers(
    settings: "Settings", file: "AgentsFile", accounts: "AccountStore | None" = None
) -> AsyncIterator["McpServers"]:
    """Make the servers of the agents file, which are closed after the block."""
    from app.cli.agent_checks import mcp_servers

    servers = mcp_servers(settings, file, accounts)
    try:
        yield servers
    finally:
        await servers.aclose()


async def _without_database(arguments: argparse.Namespace, settings: "Settings", file: "AgentsFile") -> int:
    async with _servers(settings, file) as servers:
        if arguments.action == "list":
            return await _list(file, servers)
        return await _use(arguments, servers.get(arguments.server))


async def _with_database(arguments: argparse.Namespace, settings: "Settings", file: "AgentsFile") -> int:
    from app.agents.mcp.account_store import DatabaseAccounts
    from app.agents.mcp.pin_store import DatabasePins
    from app.cli.database_access import open_database
    from app.cli.mcp_sign_in import sign_in
    from app.server.composition.mcp import sealing_secrets

    url = settings.database.url
    assert url is not None
    async with open_database(url) as (database, audit):
        accounts = DatabaseAccounts(database, lambda: sealing_secrets(settings))
        async with _servers(settings, file, accounts) as servers:
            if arguments.action in {"diff", "accept"}:
                return await _compare(arguments, file, servers, DatabasePins(database, audit))
            server = servers.get(arguments.server)
            if arguments.action == "sign-in":
                return await sign_in(servers, server, _scope_of(arguments, server), accounts, audit)
            return await _use(arguments, server)


async def _list(file: "AgentsFile", servers: "McpServers") -> int:
    found = [servers.get(name) for name in file.mcp]
    works = await asyncio.gather(*(server.probe() for server in found))
    rows = [
        (
            server.name,
            server.spec.url or " ".join(server.spec.command),
            server.spec.scope,
            str(len(server.listed.tools)) if reached and server.spec.oauth is None else "-",
            server.problem or ("works" if server.spec.oauth is None else "people sign in"),
        )
        for server, reached in zip(found, works, strict=True)
    ]
    print_table(("NAME", "AT", "SCOPE", "TOOLS", "STATE"), rows, numbers=("TOOLS",))
    return 0 if all(works) else 1


def _scope_of(arguments: argparse.Namespace, server: "McpServer") -> "Scope":
    """Return whom the arguments name, where people sign in; everywhere else one connection serves a command."""
    from app.agents.mcp.servers import SHARED
    from app.security.access.structs import tenant_id_of

    if server.spec.oauth is None:
        return SHARED
    return server.scope_of(str(tenant_id_of(arguments.tenant)), arguments.user)


async def _listed(arguments: argparse.Namespace, server: "McpServer") -> "ToolList":
    """Return the tools that a server lists, for the account that the arguments name where people sign in."""
    from app.agents.mcp.accounts import SignInNeeded
    from app.agents.tools.remote import LostConnection, ServerAway, ServerError
    from app.cli.mcp_sign_in import how_to_sign_in

    scope = _scope_of(arguments, server)
    try:
        return await server.listed_for(scope)
    except SignInNeeded:
        reason = how_to_sign_in(server, scope, arguments.tenant)
    except (AgentServiceError, ServerAway, LostConnection, ServerError) as error:
        reason = str(error)
    raise StartError(f"the MCP server {server.name!r}: {reason}")


async def _use(arguments: argparse.Namespace, server: "McpServer") -> int:
    """Inspect a server, or call one of its tools."""
    scope, listed = _scope_of(arguments, server), await _listed(arguments, server)
    if arguments.action == "inspect":
        return await _inspect(server, scope, listed)
    return await _call(server, scope, listed, arguments)


async def _inspect(server: "McpServer", scope: "Scope", listed: "ToolList") -> int:
    import msgspec

    from app.agents.mcp.pins import visible
    from app.agents.mcp.spec import shown_name

    async with server.using(scope) as connection:
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
        for name, tool in listed.tools.items()
    ]
    print_table(("TOOL", "MODELS CALL IT", "CLASS", "TIMEOUT", "DESCRIPTION"), rows)
    return 0


async def _call(server: "McpServer", scope: "Scope", listed: "ToolList", arguments: argparse.Namespace) -> int:
    import msgspec

    from app.agents.mcp.accounts import SignInNeeded
    from app.agents.mcp.tool import no_answer, no_progress
    from app.agents.tools.remote import LostConnection, ServerAway, ServerError
    from app.cli.mcp_sign_in import how_to_sign_in

    if arguments.tool not in listed.tools:
        raise UsageError(f"the server has no tool {arguments.tool!r}: it has {', '.join(listed.tools) or 'none'}")
    try:
        given = msgspec.json.decode(arguments.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"the arguments must be a JSON object: {error}") from error
    try:
        async with asyncio.timeout(server.spec.timeout_of(arguments.tool)), server.using(scope) as connection:
            raw = await connection.call_tool(arguments.tool, given, {}, no_progress, no_answer)
    except SignInNeeded:  # the tool wants more than the account has agreed to
        raise StartError(f"the call failed: {how_to_sign_in(server, scope, arguments.tenant)}") from None
    except (ServerAway, LostConnection, ServerError) as error:
        raise StartError(f"the call failed: {error}") from error
    except TimeoutError:
        raise StartError("the server did not answer in time") from None
    print(msgspec.json.format(msgspec.json.encode(raw), indent=2).decode())
    return 1 if raw.get("isError") else 0


async def _compare(
    arguments: argparse.Namespace, file: "AgentsFile", servers: "McpServers", pins: "DatabasePins"
) -> int:
    """Show the differences for each agent, and accept them if asked to."""
    from app.agents.mcp.pins import differences
    from app.cli.agent_checks import servers_of

    uses = [
        (agent, server)
        for agent, spec in file.agents.items()
        for server in servers_of(spec.tools)
        if arguments.server in {None, server} and getattr(arguments, "agent", None) in {None, agent}
    ]
    if not uses:
        raise UsageError(f"no agent of {file.source} uses that server")
    differ = 0
    found = {name: await _listed(arguments, servers.get(name)) for name in dict.fromkeys(name for _, name in uses)}
    for agent, name in uses:
        accepted, version = await pins.newest(agent, name)
        lines = list(differences(accepted.tools, found[name].tools))
        for line in lines:
            print_styled((line, {"+": "green", "-": "red"}.get(line[:1], "")))
        differ += bool(lines)
        if arguments.action == "accept" and lines:
            version = await pins.accept(agent, name, found[name], version)
        state = "accepted as" if arguments.action == "accept" and lines else "differs from" if lines else "is"
        print(f"{agent}: {name} {state} version {version}" if version else f"{agent}: {name} was never accepted")
    return 1 if differ and arguments.action == "diff" else 0
