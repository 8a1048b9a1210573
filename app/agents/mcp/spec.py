"""An MCP server as the agents file describes it, ``[mcp.NAME]``, and the names of its tools."""

import ipaddress
import shutil
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from app.agents.tools.port import ToolClass
from app.agents.tools.remote import Lookup, Seconds, expand_references, suitable_name
from app.base.byte_sizes import parse_size
from app.base.errors import StartError
from app.infra.egress.addresses import AddressAllowlist, host_of

PREFIX = "mcp:"
"""What names of tools in the agents file begin with: ``mcp:SERVER/TOOL``, or ``mcp:SERVER/*`` for all."""
ALL = "*"
SEPARATOR = "__"
"""Between the names of a server and of its tool, in the name that models use."""

_DECLARABLE = frozenset({ToolClass.READ_ONLY, ToolClass.IDEMPOTENT, ToolClass.UNSAFE})


class McpToolSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator declares of one tool; None: as for all tools of its server."""

    tool_class: ToolClass | None = None
    timeout: Seconds | None = None


class OAuthSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How people sign in at a server (OAuth 2.1). All empty: as the server and its authorization server say.

    ``client_id`` and ``client_secret``, which may refer to variables as ``${NAME}``: of a client that was registered
    by hand. ``issuer``: the authorization server where it was, the only one that is used then.
    ``client_metadata_url``: address of a client id metadata document. ``scopes``: what is asked for.
    """

    client_id: str = ""
    client_secret: str = ""
    issuer: str = ""
    client_metadata_url: str = ""
    scopes: list[str] = []


class McpServerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server: its ``url``, or the ``command`` (program and arguments) that starts it as a child process.

    ``headers`` of HTTP requests and ``env`` of the process may refer to variables of the environment as ``${NAME}``.
    ``oauth``: people sign in, once for each scope, instead of a token in ``headers``.
    ``folder``: working directory of the process; ``memory``: its limit, like ``1GiB``. ``scope``: whom one connection
    (and one process) serves. ``timeout``: seconds for one call. ``attempts``: how often a call is sent that did not
    reach the server; ``when_away``: what then, ``tell`` the model or ``wait`` until the run's time limit.
    ``resources``: whether agents may list and read the server's resources.
    """

    url: str = ""
    command: list[str] = []
    headers: dict[str, str] = {}
    oauth: OAuthSpec | None = None
    env: dict[str, str] = {}
    folder: str = ""
    memory: str = ""
    scope: Literal["server", "tenant", "user"] = "server"
    revision: Literal["auto", "2026-07-28", "2025-11-25"] = "auto"
    tool_class: ToolClass = ToolClass.UNSAFE
    timeout: Seconds = 60.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    when_away: Literal["tell", "wait"] = "tell"
    resources: bool = False
    tools: dict[str, McpToolSpec] = {}

    def class_of(self, tool: str) -> ToolClass:
        """Return the declared class of ``tool``."""
        declared = self.tools.get(tool, McpToolSpec()).tool_class
        return self.tool_class if declared is None else declared

    def timeout_of(self, tool: str) -> float:
        """Return the timeout of a call of ``tool`` in seconds."""
        declared = self.tools.get(tool, McpToolSpec()).timeout
        return self.timeout if declared is None else declared

    def check(self, name: str) -> None:
        """Raise ``ValueError`` with what is wrong with it as ``name``, to be read after that."""
        check_name(name)
        if bool(self.url) == bool(self.command):
            raise ValueError("give either url or command, a list of the program and its arguments")
        if self.url:
            try:
                host_of(self.url)
            except ValueError as error:
                raise ValueError(f"url: {error}") from None
        others = ("env", "folder", "memory") if self.url else ("headers", "oauth")
        if wrong := [name for name in others if getattr(self, name)]:
            raise ValueError(f"{wrong[0]} applies to a server with {'command' if self.url else 'url'} only")
        if self.oauth is not None:
            self._check_oauth(self.oauth)
        if self.memory:
            parse_size(self.memory)
        for declared in (self.tool_class, *(one.tool_class for one in self.tools.values())):
            if declared not in {None, *_DECLARABLE}:
                raise ValueError(
                    f"tool_class {declared} is not for tools of MCP servers: use {', '.join(sorted(_DECLARABLE))}"
                )

    def _check_oauth(self, oauth: OAuthSpec) -> None:
        if self.scope == "server":
            raise ValueError('oauth needs scope = "tenant" or "user": whose account one sign-in is for')
        if "authorization" in map(str.lower, self.headers):
            raise ValueError("oauth takes the place of the header Authorization: remove one of them")
        if oauth.client_secret and not oauth.client_id:
            raise ValueError("oauth.client_secret belongs to a client_id: give both")
        if oauth.client_secret and not oauth.issuer:
            raise ValueError("oauth.client_secret needs oauth.issuer: the authorization server that may get it")
        if oauth.client_metadata_url and urlsplit(oauth.client_metadata_url).scheme != "https":
            raise ValueError("oauth.client_metadata_url must be an https address")


def check_encrypted(url: str, allowed: AddressAllowlist) -> None:
    """Raise ``ValueError`` if tokens may not go to ``url``: without TLS only to the operator's own network."""
    host = host_of(url)
    if urlsplit(url).scheme == "https" or allowed.host(host):
        return
    try:
        private = ipaddress.ip_address(host).is_private  # whether it may be called is checked by the connection
    except ValueError:
        private = False
    if not private:
        raise ValueError("tokens are sent by https only, except to hosts of AGENT_EGRESS_ALLOW")


class ResolvedServer(NamedTuple):
    """A server with the values of the variables that its headers, environment or client secret refer to."""

    headers: dict[str, str]
    env: dict[str, str]
    client_secret: str
    program: str
    folder: Path


def resolve(spec: McpServerSpec, folder: Path, lookup: Lookup) -> ResolvedServer:
    """Return what a connection needs; relative paths start from ``folder``. Raises ``StartError``."""
    program = ""
    if spec.command:
        first = spec.command[0]
        local = folder / first
        found = str(local) if "/" in first and local.is_file() else shutil.which(first)
        if found is None:
            raise StartError(f"the program {first!r} is not found: install it, or give its path")
        program = found
    where = folder / spec.folder
    if not where.is_dir():
        raise StartError(f"folder: there is no directory {where}")
    headers, env = expand_references(spec.headers, lookup), expand_references(spec.env, lookup)
    oauth = {} if spec.oauth is None else expand_references({"secret": spec.oauth.client_secret}, lookup)
    return ResolvedServer(headers, env, oauth.get("secret", ""), program, where)


class McpToolName(NamedTuple):
    """A tool, or all tools (``*``), of a server, as the agents file names it."""

    server: str
    tool: str


def parse_name(text: str) -> McpToolName | None:
    """Parse ``mcp:SERVER/TOOL``; None for any other name. Raises ``StartError`` if a part is missing."""
    if not text.startswith(PREFIX):
        return None
    server, _, tool = text.removeprefix(PREFIX).partition("/")
    if not server or not tool:
        raise StartError(f"tool {text!r}: write mcp:SERVER/TOOL, or mcp:SERVER/* for all tools of the server")
    return McpToolName(server, tool)


def check_name(server: str) -> None:
    """Raise ``ValueError`` if tools of ``server`` could be called as those of another server."""
    if SEPARATOR in f"{server}_":
        raise ValueError(f"a name may not contain {SEPARATOR} or end with _: models call its tools {server}__TOOL")


def shown_name(server: str, tool: str) -> str:
    """Return the name under which a model calls ``tool`` of ``server``: ``SERVER__TOOL``, which every provider takes.

    A name that had to be changed ends with a digest of the original, so that no two tools share one.
    """
    return suitable_name(f"{server}{SEPARATOR}{tool}")


def shown_pattern(text: str) -> str:
    """Return ``text``, an entry of ``approve.tools``, in terms of the names that models use."""
    name = parse_name(text)
    if name is None:
        return text
    return f"{name.server}{SEPARATOR}{ALL}" if name.tool == ALL else shown_name(*name)
