"""Host and Origin validation, and CORS: which host names are served, and which web pages may use the server.

Without authentication the server acts for every request that reaches it, so only a page's origin distinguishes a
developer's own front end from a foreign page in the same browser.

Litestar's own CORS and allowed hosts (2.25) do not suffice: they refuse no origin and no WebSocket handshake, run
behind the layers that refuse bodies, whose answers a page could then not read, omit ``Vary: Origin`` where an origin is
not allowed, and match a Host with its port or not at all.

Sources: https://fetch.spec.whatwg.org/#http-cors-protocol; RFC 9110, section 7.2 (Host); RFC 6761, section 6.3
(localhost); https://www.w3.org/TR/fetch-metadata/; RFC 6455, section 10.2 (Origin of WebSocket handshakes).
"""

import ipaddress
import re
from functools import lru_cache
from typing import Any

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import UsageError
from app.base.ttl_cache import TTLCache
from app.infra.http.problems import send_problem
from app.infra.settings.environment import is_loopback

log = structlog.get_logger(__name__)

METHODS = b"GET, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS = (
    b"Authorization, X-Api-Key, Content-Type, Accept, Last-Event-ID, Idempotency-Key, X-Request-Id, traceparent, "
    b"tracestate"
)
EXPOSED_HEADERS = (
    b"Location, Content-Location, X-Request-Id, X-Pagination-Total, X-Pagination-Next, Retry-After, RateLimit, "
    b"RateLimit-Policy, WWW-Authenticate, Mcp-Session-Id"
)
PREFLIGHT_MAX_AGE = b"600"

_ORIGIN = re.compile(r"https?://[^/\s*]+")
_HOST = re.compile(r"(\*\.)?[a-z0-9.\-]+|\[[0-9a-f:.]+\]")
_HOST_HEADER = re.compile(rb"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN_HEADER = re.compile(rb"https?://(?P<authority>[^/\s]+)")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9_-]{1,64}(?:, ?[A-Za-z0-9_-]{1,64}){0,63}")

PROBED = ("/api/v1/health", "/healthz", "/readyz", "/livez", "/metrics")
"""Paths that load balancers and scrapers request by address: with authentication they are served under every name."""

LOG_SECONDS = 60.0
MAX_LOGGED = 100
"""Interval of log lines for one refused origin or host, and the number of them that are tracked."""

MAX_PRINTED = 200
"""Characters of it in the log."""

MALFORMED_HOST = "The Host header must be a name or an address, optionally with a port."
UNKNOWN_HOST = "This server does not serve the name in the Host header: use its own name."
ONLY_LOOPBACK = (
    "Without authentication this server accepts only loopback names, like localhost. "
    "Add other names to AGENT_ALLOWED_HOSTS."
)
OTHER_ORIGIN = (
    "Without authentication only web pages of this machine may use this server. "
    "Add other origins to AGENT_CORS_ORIGINS."
)

_WANTED = frozenset(
    {
        b"host",
        b"origin",
        b"access-control-request-method",
        b"access-control-request-headers",
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"sec-fetch-dest",
    }
)
_Headers = dict[bytes, bytes]


class OriginRule:
    """Which web pages may use a route whatever their credentials: those of this server's name, and ``origins``.

    ``origins`` is a comma-separated list. Raises ``UsageError`` for invalid entries.
    """

    def __init__(self, origins: str) -> None:
        exact = _parts("AGENT_CORS_ORIGINS", origins, _ORIGIN, "exact origins like https://app.example.com")
        self.origins = {part.encode() for part in exact}

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether pages of ``origin`` (None: not a web page) may use a server that is requested as ``host``."""
        return origin is None or self.may_use(origin.encode("latin-1"), (host or "").encode("latin-1"))

    def may_use(self, origin: bytes, host: bytes) -> bool:
        """Whether pages of ``origin`` may use a server that is requested as ``host``."""
        if origin in self.origins:
            return True
        name, requested = _name_of(origin), _name_in(host)
        if name is None or requested is None:
            return False
        return (_is_loopback(name) and _is_loopback(requested)) or origin.partition(b"://")[2] == host


class HostAndCorsMiddleware:
    """ASGI middleware. ``hosts`` and ``origins`` are comma-separated lists.

    With authentication, empty lists mean: all hosts, no origins. Without it (``authenticated`` false), loopback hosts
    and origins are served in addition to those listed, and all others are refused. ``prefix`` precedes every path.
    Raises ``UsageError`` for invalid entries.
    """

    def __init__(self, app: ASGIApp, hosts: str, origins: str, prefix: str = "", *, authenticated: bool = True) -> None:
        self._app = app
        self._authenticated = authenticated
        self._probed = tuple(prefix + path for path in PROBED)
        self._hosts = _parts("AGENT_ALLOWED_HOSTS", hosts.lower(), _HOST, "names like a.example.com or *.example.com")
        self._rule = OriginRule(origins)
        self._origins = self._rule.origins
        self._logged: TTLCache[bytes, bool] = TTLCache(MAX_LOGGED, LOG_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind: str = scope["type"]
        if kind not in (ScopeType.HTTP, ScopeType.WEBSOCKET):
            await self._app(scope, receive, send)
            return
        headers: _Headers = {}
        for name, value in scope["headers"]:
            if name in _WANTED:
                headers[name] = headers[name] + b", " + value if name in headers else value
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _refuse(scope, send, *refused)
            return
        origin = headers.get(b"origin")
        if origin is None or kind == ScopeType.WEBSOCKET or not (self._origins or not self._authenticated):
            await self._app(scope, receive, send)
        elif b"access-control-request-method" in headers and scope["method"] == HttpMethod.OPTIONS:  # type: ignore[typeddict-item]
            await self._preflight(origin, headers, send)
        else:
            await self._app(scope, receive, self._with_cors(origin, send))

    def _refusal(self, scope: Scope, headers: _Headers) -> tuple[int, str] | None:
        """Return status and detail if the request is refused."""
        host = headers.get(b"host", b"")
        name = _name_in(host) if host else ""
        if name is None:
            return 400, MALFORMED_HOST
        if self._authenticated:
            if self._hosts and not self._serves(name) and not scope["path"].startswith(self._probed):
                return 400, UNKNOWN_HOST
            return None
        if not _is_loopback(name) and not self._serves(name):
            self._log("host_refused", host, scope)
            return 400, ONLY_LOOPBACK
        if (origin := headers.get(b"origin")) is not None:
            if not self._may_use(origin, host):
                self._log("origin_refused", origin, scope)
                return 403, OTHER_ORIGIN
        elif _from_another_site(scope, headers, name):
            self._log("origin_refused", headers[b"sec-fetch-site"], scope)
            return 403, OTHER_ORIGIN
        return None

    def _serves(self, name: str) -> bool:
        return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in self._hosts)

    def _may_use(self, origin: bytes, host: bytes) -> bool:
        """Whether pages of ``origin`` may use a server without authentication that is requested as ``host``."""
        return self._rule.may_use(origin, host) or _is_loopback(_name_of(origin) or "")

    def _may_read(self, origin: bytes) -> bool:
        # without authentication all other origins are refused already
        return origin in self._origins or not self._authenticated

    async def _preflight(self, origin: bytes, request_headers: _Headers, send: Send) -> None:
        headers = [(b"vary", b"Origin")]
        if self._may_read(origin):
            wanted = request_headers.get(b"access-control-request-headers", b"")
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-methods", METHODS),
                (
                    b"access-control-allow-headers",
                    ALLOWED_HEADERS + b", " + wanted if _HEADER_NAMES.fullmatch(wanted) else ALLOWED_HEADERS,
                ),
                (b"access-control-max-age", PREFLIGHT_MAX_AGE),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _with_cors(self, origin: bytes, send: Send) -> Send:
        headers = [(b"vary", b"Origin")]
        if self._may_read(origin):
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED_HEADERS)]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        return sending

    def _log(self, event: str, value: bytes, scope: Scope) -> None:
        """Log a refused value, each one at most once per ``LOG_SECONDS``."""
        if value in self._logged:
            return
        self._logged.put(value, True)
        log.warning(event, value=_printable(value.decode("latin-1")), path=_printable(scope["path"]))


def _printable(text: str) -> str:
    return ascii(text)[1:-1][:MAX_PRINTED]


async def _refuse(scope: Scope, send: Send, status: int, detail: str) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        await send(
            {"type": "websocket.close", "code": 1008, "reason": detail}
        )  # before accept: servers respond with 403
    else:
        await send_problem(scope, send, status, detail)


def _from_another_site(scope: Scope, headers: _Headers, name: str) -> bool:
    """Whether a browser sent a request without Origin for a foreign page; links to our pages may be followed."""
    site = headers.get(b"sec-fetch-site", b"")
    if site != b"cross-site" and (site != b"same-site" or _is_loopback(name)):
        return False
    followed = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    return not (followed and scope["type"] == ScopeType.HTTP and scope["method"] in ("GET", "HEAD"))


@lru_cache(1024)
def _name_in(authority: bytes) -> str | None:
    """Return the name or address (IPv6 in brackets) of a Host header in lower case; None if it is malformed."""
    match = _HOST_HEADER.fullmatch(authority)
    if match is None or int(match["port"] or b"0") > 65535:
        return None
    name = match["name"].decode().lower().removesuffix(".")
    return None if name.startswith("[") and not _is_address(name[1:-1]) else name


def _name_of(origin: bytes) -> str | None:
    """Return the name or address of an Origin header; None if it is malformed."""
    match = _ORIGIN_HEADER.fullmatch(origin)
    return None if match is None else _name_in(match["authority"])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(1024)
def _is_loopback(name: str) -> bool:
    return name.endswith(".localhost") or is_loopback(name.removeprefix("[").removesuffix("]"))


def _parts(variable: str, text: str, form: re.Pattern[str], like: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        if not form.fullmatch(part):
            raise UsageError(f"{variable} has the invalid entry {part!r}; use {like}")
    return found
