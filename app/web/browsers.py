"""Which names this server answers to, and which pages of other origins may read its answers in a browser.

Sources: https://fetch.spec.whatwg.org/#http-cors-protocol; RFC 9110, section 7.2 (Host).
"""

import re
from typing import Any

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import UsageError
from app.web.problems import send_problem

METHODS = b"GET, POST, PUT, PATCH, DELETE"
SENT = (
    b"Authorization, X-Api-Key, Content-Type, Accept, Last-Event-ID, Idempotency-Key, X-Request-Id, traceparent, "
    b"tracestate"
)
READ = (
    b"Location, Content-Location, X-Request-Id, X-Pagination-Total, X-Pagination-Next, Retry-After, RateLimit, "
    b"RateLimit-Policy"
)
REMEMBERED_SECONDS = b"600"

_ORIGIN = re.compile(r"https?://[^/\s*]+")
_HOST = re.compile(r"(\*\.)?[a-z0-9.\-]+|\[[0-9a-f:.]+\]")
PROBED = ("/api/v1/health", "/healthz", "/readyz", "/livez", "/metrics")
"""Asked by address, by those who look after the server: they need no name."""


class Browsers:
    """ASGI middleware. ``hosts`` and ``origins`` are lists with commas between; empty ones: all hosts, no origins.

    ``prefix`` stands before every path. Raises ``UsageError`` for what is neither.
    """

    def __init__(self, app: ASGIApp, hosts: str, origins: str, prefix: str = "") -> None:
        self._app = app
        self._probed = tuple(prefix + path for path in PROBED)
        self._hosts = _parts("AGENT_ALLOWED_HOSTS", hosts.lower(), _HOST, "names like a.example.com or *.example.com")
        exact = _parts("AGENT_CORS_ORIGINS", origins, _ORIGIN, "exact origins like https://app.example.com")
        self._origins = {part.encode() for part in exact}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        origin = host = b""
        asks = False
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"host":
                host = value
            elif name == b"access-control-request-method":
                asks = True
        if self._hosts and not self._serves(host) and not scope["path"].startswith(self._probed):
            await send_problem(scope, send, 400, "This server does not serve the name in Host: ask it by its own name.")
            return
        if not origin or not self._origins:
            await self._app(scope, receive, send)
        elif asks and scope["method"] == HttpMethod.OPTIONS:
            await self._preflight(origin, send)
        else:
            await self._app(scope, receive, self._telling(origin, send))

    def _serves(self, host: bytes) -> bool:
        name = re.sub(r":\d+$", "", host.decode("latin-1")).lower()
        return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in self._hosts)

    async def _preflight(self, origin: bytes, send: Send) -> None:
        headers = [(b"vary", b"Origin")]
        if origin in self._origins:
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", SENT),
                (b"access-control-max-age", REMEMBERED_SECONDS),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _telling(self, origin: bytes, send: Send) -> Send:
        headers = [(b"vary", b"Origin")]
        if origin in self._origins:
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", READ)]

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        return telling


def _parts(variable: str, text: str, form: re.Pattern[str], like: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        if not form.fullmatch(part):
            raise UsageError(f"{variable} names {part!r}; use {like}")
    return found
