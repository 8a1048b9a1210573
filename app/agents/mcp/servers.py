"""All MCP servers of the agents file: connect, list tools, reconnect when one is available again."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import structlog

from app.agents.mcp.accounts import CALLBACK, Account, AccountStore, MemoryAccounts, SignInNeeded
from app.agents.mcp.pins import FirstSeen, PinnedTool, PinStore, ToolList
from app.agents.mcp.port import Connection
from app.agents.mcp.source import McpToolSource, stop_reason
from app.agents.mcp.spec import McpServerSpec, McpToolName, ResolvedServer, check_encrypted, resolve
from app.agents.tools.port import ToolContext
from app.agents.tools.remote import Lookup, LostConnection, ServerAway, ServerError, ToolStopped
from app.base.errors import AgentServiceError, StartError
from app.base.single_flight import SingleFlight
from app.base.tasks import Tasks
from app.domain.caller import AUTH_USER_ID
from app.infra.egress.addresses import AddressAllowlist, check_url

if TYPE_CHECKING:
    from app.agents.mcp.sign_in import SignIn

log = structlog.get_logger(__name__)

START_SECONDS = 10.0
"""How long a start waits for the servers that agents need."""
LIST_AGAIN_SECONDS = 60.0
"""A list older than this is fetched again before a call."""
FIRST_PAUSE = 1.0
MAX_PAUSE = 60.0
"""Seconds between attempts to reach a server that could not be reached."""
FIRST_WAIT = 0.25
"""Seconds in which a connection that failed is not tried again by calls; doubled with each failure."""
MAX_DOUBLINGS = 8
ACCEPTED_SECONDS = 10.0
"""Seconds between checks whether an operator has accepted the tools that are stopped."""
IDLE_SECONDS = 300.0
"""A connection without calls for so long is closed, and its process ended."""
EXCHANGE_SECONDS = 10.0
"""How long a process that ends waits for tokens that an authorization server has made."""
MAX_CONNECTIONS = 32
"""Connections to one server at a time: of as many tenants or users."""


class Scope(NamedTuple):
    """Whom one connection serves: a tenant, its user, or with neither everyone."""

    tenant_id: str = ""
    user_id: str = ""


SHARED = Scope()

Connect = Callable[[str, McpServerSpec, Account | None], Connection]
"""Makes a connection, of an account where people sign in, which is opened next. Raises ``StartError``."""


class _Kept:
    """A connection for one scope, how many calls use it, and the tools that it lists."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.connection: Connection | None = None
        self.listed = ToolList()
        self.listed_at = -math.inf
        self.users = 0
        self.used_at = 0.0
        self.failures = 0
        self.not_before = 0.0
        self.closing: asyncio.TimerHandle | None = None


class McpServer:
    """One server, and its tools for each agent. ``problem``: why its tools cannot be used; empty if they can."""

    def __init__(self, name: str, spec: McpServerSpec, connect: Connect, pins: PinStore) -> None:
        self.name = name
        self.spec = spec
        self.problem = "it has not been reached yet"
        self.listed = ToolList()
        self.sources: list[McpToolSource] = []
        self.tried = asyncio.Event()
        """Set once it was reached or its problem is known."""
        self._connect = connect
        self._pins = pins
        self._kept: dict[Scope, _Kept] = {}
        self._listings = SingleFlight[Scope, None]()
        self._tending = False
        self._tasks = Tasks(f"mcp-server-{name}")

    def tend(self) -> None:
        """Try in the background until the server has listed its tools, and again while some are not accepted."""
        if not self._tending:
            self._tending = True
            self._tasks.start(self._tend(), name="tend")

    async def _tend(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    reached = await self.probe()
                except Exception as error:  # an edge: whatever was raised, the server is tried again
                    self.problem, reached = type(error).__name__, False
                    log.exception("mcp_server_unavailable", server=self.name)
                if reached and not any(source.stopped for source in self.sources):
                    return
                await asyncio.sleep(ACCEPTED_SECONDS if reached else pause)
                pause = min(2 * pause, MAX_PAUSE)
        finally:
            self._tending = False

    async def probe(self) -> bool:
        """Connect and list the tools; return whether that worked, else ``problem`` says why not.

        Where people sign in nothing can be listed before: the tools are those that were accepted.
        """
        try:
            if self.spec.oauth is not None:
                await self._take_accepted()
                return True
            async with self.using(SHARED) as connection:
                await self._list(SHARED, connection)
        except (AgentServiceError, ServerAway, ServerError, LostConnection) as error:
            reason = str(error)
            if reason != self.problem:
                log.warning("mcp_server_unavailable", server=self.name, reason=reason)
            self.problem = reason
            return False
        finally:
            self.tried.set()
        return True

    @contextlib.asynccontextmanager
    async def connected(self, context: ToolContext, tool: PinnedTool | None = None) -> AsyncIterator[Connection]:
        """Enter with a connection for a call of ``tool``, if the server still describes it as pinned.

        None: for a call that was made before. Raises ``ServerAway``, ``LostConnection``, ``ServerError``,
        ``SignInNeeded`` or ``ToolStopped``.
        """
        scope = self._scope_of_call(context)
        async with self.using(scope) as connection:
            if tool is not None:
                kept = self._kept[scope]
                if time.monotonic() - kept.listed_at > LIST_AGAIN_SECONDS:
                    await self._list(scope, connection)
                if reason := stop_reason(kept.listed.digests.get(tool.name), tool.digest):
                    raise ToolStopped(reason)
            yield connection

    async def aclose(self) -> None:
        """Close all connections."""
        await self._tasks.aclose()
        for kept in self._kept.values():
            await _close(kept)

    def scope_of(self, tenant_id: str, user_id: str) -> Scope:
        """Return whom the connection for a user of a tenant serves."""
        if self.spec.scope == "server":
            return SHARED
        return Scope(tenant_id, user_id if self.spec.scope == "user" else "")

    def account_of(self, scope: Scope) -> Account | None:
        """Return the account with which ``scope`` is served; None where none is needed."""
        if self.spec.oauth is None or scope == SHARED:
            return None
        return Account(UUID(scope.tenant_id), self.name, scope.user_id)

    def _scope_of_call(self, context: ToolContext) -> Scope:
        return self.scope_of(context.tenant_id, str(context.configurable.get(AUTH_USER_ID) or ""))

    async def signed_in(self, context: ToolContext) -> None:
        """List the tools with the account of ``context``. Raises as ``connected``."""
        scope = self._scope_of_call(context)
        async with self.using(scope) as connection:
            await self._list(scope, connection)

    async def listed_for(self, scope: Scope) -> ToolList:
        """Return the tools that the server lists for ``scope``, which decides for no agent. Raises as ``connected``."""
        async with self.using(scope) as connection:
            return await _list_of(connection)

    async def _take_accepted(self) -> None:
        for source in self.sources:
            accepted = await self._pins.known(source.agent, self.name)
            if accepted.tools:
                source.update(accepted, accepted)
        self.problem = ""

    async def _list(self, scope: Scope, connection: Connection) -> None:
        """List the tools, once for all that wait for the list of ``scope``."""
        kept = self._kept[scope]  # stays while it is in use
        await self._listings.run(scope, lambda: self._list_once(scope, kept, connection), self._tasks)

    async def _list_once(self, scope: Scope, kept: _Kept, connection: Connection) -> None:
        listed = await _list_of(connection)
        if scope == SHARED:
            for source in self.sources:
                source.update(listed, await self._pins.accepted(source.agent, self.name, listed))
            self.listed, self.problem = listed, ""
        elif self.spec.oauth is not None:
            for source in self.sources:
                accepted = await self._pins.accepted(source.agent, self.name, listed)
                source.update(accepted, accepted)  # what an account is shown else does not decide for the others
        elif listed.digests != self.listed.digests:
            self.tend()  # no tenant's list decides for the others
        if kept.connection is connection:
            kept.listed, kept.listed_at = listed, time.monotonic()
        if any(source.stopped for source in self.sources):
            self.tend()

    @contextlib.asynccontextmanager
    async def using(self, scope: Scope = SHARED) -> AsyncIterator[Connection]:
        """Enter with an open connection for ``scope``. Raises ``StartError``, and as ``Connection.open``."""
        kept = self._kept.get(scope)
        if kept is None:
            self._make_room()
            kept = self._kept[scope] = _Kept()
        kept.users += 1
        if kept.closing is not None:
            kept.closing.cancel()
        try:
            yield await self._opened(kept, self.account_of(scope))
        finally:
            kept.users -= 1
            kept.used_at = time.monotonic()
            if not kept.users:
                loop = asyncio.get_running_loop()
                kept.closing = loop.call_later(IDLE_SECONDS, self._close_idle, scope)

    async def _opened(self, kept: _Kept, account: Account | None) -> Connection:
        """Return the open connection, or a new one: not sooner after failures than their number allows."""
        async with kept.lock:
            if kept.connection is not None and not kept.connection.ended:
                return kept.connection
            if (wait := kept.not_before - time.monotonic()) > 0:
                raise ServerAway(f"it failed {kept.failures} times in a row; the next attempt is in {wait:.0f} s")
            if kept.connection is not None:
                await kept.connection.aclose()
            kept.connection = connection = self._connect(self.name, self.spec, account)
            kept.listed_at = -math.inf
            opened_at = time.monotonic()
            try:
                await connection.open()
            except SignInNeeded:
                kept.connection = None
                raise
            except BaseException:
                kept.connection = None
                kept.failures += 1
                doublings = min(kept.failures - 1, MAX_DOUBLINGS)
                kept.not_before = opened_at + min(FIRST_WAIT * 2**doublings, MAX_PAUSE)
                raise
            kept.failures = 0
            return connection

    def _make_room(self) -> None:
        """Close the connection that was not used for the longest time, if there are as many as may be.

        It is closed in the background, so that nothing comes between this and the new connection.
        """
        if len(self._kept) < MAX_CONNECTIONS:
            return
        idle = [scope for scope, kept in self._kept.items() if not kept.users]
        if not idle:
            raise ServerAway(f"all {MAX_CONNECTIONS} connections to it are in use")
        oldest = self._kept.pop(min(idle, key=lambda scope: self._kept[scope].used_at))
        self._tasks.start(_close(oldest), name="make_room")

    def _close_idle(self, scope: Scope) -> None:
        kept = self._kept.get(scope)
        if kept is not None and not kept.users:
            del self._kept[scope]
            self._tasks.start(_close(kept), name="idle")


async def _list_of(connection: Connection) -> ToolList:
    return ToolList({str(tool["name"]): tool for tool in await connection.list_tools()})


async def _close(kept: _Kept) -> None:
    if kept.closing is not None:
        kept.closing.cancel()
    connection, kept.connection = kept.connection, None
    if connection is not None:
        await connection.aclose()


class Connector:
    """Makes connections with the SDK, which the first one imports.

    ``folder``: where relative paths start; ``lookup``: variables that headers and environments refer to. ``accounts``:
    where sign-ins are kept; ``public_url``: where authorization servers send people back to.
    """

    def __init__(
        self,
        folder: Path,
        lookup: Lookup,
        allowed: AddressAllowlist,
        accounts: AccountStore | None = None,
        public_url: str = "",
    ) -> None:
        self.accounts = MemoryAccounts() if accounts is None else accounts
        self._folder = folder
        self._lookup = lookup
        self._allowed = allowed
        self.redirect_uri = public_url + CALLBACK
        self._exchanges = Tasks("mcp-sign-in")

    def connect(self, name: str, spec: McpServerSpec, account: Account | None = None) -> Connection:
        """Return a new connection (``Connect``)."""
        try:
            from app.agents.mcp.connection import McpConnection
        except ModuleNotFoundError as error:
            raise StartError(f"{error.name} is not installed: install agent-service[mcp]") from error
        if spec.url:
            try:
                check_url(spec.url, self._allowed)
            except ValueError as error:
                raise StartError(f"url: {error}") from None
        resolved = self._resolved(spec)
        if spec.oauth is not None and account is None:
            raise StartError("people sign in at it, with accounts of their own")
        sign_in = None if account is None else self._sign_in(spec, account, resolved)
        return McpConnection(name, spec, resolved, self._allowed, sign_in)

    async def finish(self, spec: McpServerSpec, account: Account, code: str, issuer: str | None) -> None:
        """Finish the sign-in of ``account``. Raises ``SignInRefused``, and ``StartError``."""
        await self._sign_in(spec, account, self._resolved(spec)).finish(code, issuer)

    async def aclose(self) -> None:
        """Wait until the tokens that are being made are stored."""
        await self._exchanges.wait(EXCHANGE_SECONDS)
        await self._exchanges.aclose()

    def _sign_in(self, spec: McpServerSpec, account: Account, resolved: ResolvedServer) -> "SignIn":
        from app.agents.mcp.sign_in import SignIn, SignInServices

        assert spec.oauth is not None
        try:
            check_encrypted(spec.url, self._allowed)
        except ValueError as error:
            raise StartError(f"url: {error}") from None
        services = SignInServices(self.accounts, self.redirect_uri, self._allowed, self._exchanges)
        return SignIn(spec.url, spec.oauth, resolved.client_secret, account, services)

    def _resolved(self, spec: McpServerSpec) -> ResolvedServer:
        try:
            return resolve(spec, self._folder, self._lookup)
        except AgentServiceError as error:
            raise StartError(str(error)) from error


class McpServers:
    """The servers of an agents file by name. Only those that agents use are connected."""

    def __init__(self, specs: Mapping[str, McpServerSpec], connector: Connector, pins: PinStore | None = None) -> None:
        pins = pins or FirstSeen()
        self._connector = connector
        self._servers = {name: McpServer(name, spec, connector.connect, pins) for name, spec in specs.items()}

    def source(self, agent: str, server: str, names: Iterable[str]) -> McpToolSource:
        """Return the tools ``names`` of ``server`` for ``agent``. Raises ``StartError`` for an unknown server."""
        found = self.get(server)
        source = McpToolSource(agent, found, tuple(names))
        found.sources.append(source)
        return source

    def sources(self, agent: str, names: Iterable[McpToolName]) -> list[McpToolSource]:
        """Return the tools of each server that ``names`` contain. Raises ``StartError``."""
        by_server: dict[str, list[str]] = {}
        for name in names:
            by_server.setdefault(name.server, []).append(name.tool)
        return [self.source(agent, server, tools) for server, tools in by_server.items()]

    def get(self, name: str) -> McpServer:
        """Return the server ``name``. Raises ``StartError``."""
        if name not in self._servers:
            known = ", ".join(self._servers) or "none"
            raise StartError(f"there is no MCP server {name!r}: define [mcp.{name}]. Defined: {known}")
        return self._servers[name]

    async def pending(self, state: str) -> Account | None:
        """Return whose sign-in waits under ``state``, None if none does."""
        account = await self._connector.accounts.find(state)
        return account if account is not None and account.server in self._servers else None

    @property
    def redirect_uri(self) -> str:
        """Where authorization servers send people back to."""
        return self._connector.redirect_uri

    async def finish_sign_in(self, account: Account, code: str, issuer: str | None) -> None:
        """Finish the sign-in of ``account`` with what the authorization server sent. Raises as ``Connector.finish``."""
        await self._connector.finish(self.get(account.server).spec, account, code, issuer)

    @property
    def needed(self) -> list[McpServer]:
        """The servers that agents use."""
        return [server for server in self._servers.values() if server.sources]

    def start(self) -> None:
        """Begin to connect."""
        for server in self.needed:
            server.tend()

    async def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until each server was reached or its problem is known; at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(server.tried.wait() for server in self.needed))

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))
        await self._connector.aclose()
