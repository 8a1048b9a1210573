"""``agent-service mcp sign-in``: a person signs in at an MCP server with a browser, before runs have to ask for it.

The authorization server sends the browser back to where the service has its callback, so that one registration of the
client serves both. If that is this machine and no service listens there, this command does.
"""

import asyncio
import contextlib
import shlex
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.base.errors import AgentServiceError, StartError, UsageError

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.agents.mcp.accounts import Account, AccountStore
    from app.agents.mcp.servers import McpServer, McpServers, Scope
    from app.security.access.structs import AuditSink

PAUSE = 0.3
"""Seconds between looks at whether the person has signed in."""


def how_to_sign_in(server: "McpServer", scope: "Scope", tenant: str) -> str:
    """Return what to do about an account that has not signed in."""
    account = server.account_of(scope)
    assert account is not None
    words = ["agent-service", "mcp", "sign-in", server.name]
    if tenant != "default":
        words += ["--tenant", tenant]
    if scope.user_id:
        words += ["--user", scope.user_id]
    other = "" if scope.user_id or server.spec.scope != "user" else ", or name a user who has (--user)"
    return f"{account.about} has not signed in: run `{shlex.join(words)}`{other}"


async def sign_in(
    servers: "McpServers", server: "McpServer", scope: "Scope", accounts: "AccountStore", records: "AuditSink"
) -> int:
    """Print the address at which the person signs in, unless they have, and wait until they did."""
    from app.agents.mcp.accounts import SignInNeeded
    from app.agents.tools.remote import LostConnection, ServerAway, ServerError

    account = server.account_of(scope)
    if account is None:
        raise UsageError(f"nothing to sign in at: [mcp.{server.name}] has no table oauth")
    try:
        try:
            listed = await server.listed_for(scope)
        except SignInNeeded as needed:
            before = (await accounts.load(account)).get("tokens")
            async with _callback(servers, records):
                print(f"Sign in to {server.name} for {account.about}, in a browser:\n\n{needed.url}\n", flush=True)
                await _wait(accounts, account, before)
            listed = await server.listed_for(scope)
    except SignInNeeded:
        raise StartError(f"the MCP server {server.name!r} does not take what the sign-in gave") from None
    except (AgentServiceError, ServerAway, LostConnection, ServerError) as error:
        raise StartError(f"the MCP server {server.name!r}: {error}") from error
    print(f"{account.about} is signed in at {server.name}, which lists {len(listed.tools)} tools")
    return 0


@contextlib.asynccontextmanager
async def _callback(servers: "McpServers", records: "AuditSink") -> AsyncIterator[None]:
    """Serve the callback of sign-ins for the block, if it is on this machine and no service does."""
    from aiohttp import web

    from app.infra.settings.environment import is_loopback
    from app.protocols.mcp.sign_in import HEADERS, McpSignIns, callback_page

    async def answer(request: Any) -> Any:
        page = await callback_page(McpSignIns(servers, records), request.query)
        return web.Response(text=page.html, status=page.status, headers=HEADERS, content_type="text/html")

    at = urlsplit(servers.redirect_uri)
    if at.scheme != "http" or not is_loopback(at.hostname or ""):
        yield
        return
    application = web.Application()
    application.router.add_get(at.path, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        with contextlib.suppress(OSError):  # the service listens, and has the callback
            await web.TCPSite(runner, at.hostname, at.port).start()
        yield
    finally:
        await runner.cleanup()


async def _wait(accounts: "AccountStore", account: "Account", before: Any) -> None:
    """Wait until ``account`` has other tokens than ``before``. Raises ``StartError``."""
    from app.agents.mcp.accounts import SIGN_IN_SECONDS
    from app.agents.mcp.servers import EXCHANGE_SECONDS

    ends_at = time.monotonic() + SIGN_IN_SECONDS
    while time.monotonic() < ends_at:
        kept = await accounts.load(account)
        if kept.get("tokens") not in (None, before):
            return
        if "pending" not in kept:  # the browser is back: the code is exchanged, or the sign-in has failed
            ends_at = min(ends_at, time.monotonic() + EXCHANGE_SECONDS)
        await asyncio.sleep(PAUSE)
    raise StartError("the sign-in was not finished; the page in the browser says why. Try again")
