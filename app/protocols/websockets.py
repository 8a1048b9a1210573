"""WebSocket connections (RFC 6455) as clients of the HTTP routes.

What a frame asks for is a request to a route, its answer is a response. So what guards the routes (authentication,
permissions, limits, idempotency) guards connections too. A browser, which can send no headers, names its key as a
sub-protocol, ``bearer.KEY``, next to that of the connection.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

BEARER = "bearer."

MAX_FRAME_BYTES = 8 * 1024 * 1024

CLOSED, RESTARTS, TOO_BIG, REFUSED = 1000, 1012, 1009, 4000
"""Close codes; ``REFUSED`` plus an HTTP status means that reconnecting will not help."""

DATA = re.compile(rb"data: ([^\r\n]*)")
"""The data of a server-sent event."""

_DROPPED = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"connection", b"upgrade", b"accept"})

OnStart = Callable[[int], Awaitable[None]]
OnBody = Callable[[bytes], Awaitable[None]]

Serve = Callable[[ASGIApp, Any, Receive, Send, "re.Match[str]"], Awaitable[None]]
"""Serve one connection of a path: the application, the scope, ``receive``, ``send``, and the match of the path."""


class WebSocketRoutes:
    """ASGI middleware: serve the connections of ``routes``, by patterns of their paths; HTTP goes through."""

    def __init__(self, app: ASGIApp, routes: Mapping["re.Pattern[str]", Serve]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or one request."""
        if scope["type"] != ScopeType.WEBSOCKET:
            await self._app(scope, receive, send)
            return
        for pattern, serve in self._routes.items():
            if match := pattern.fullmatch(scope["path"]):
                await serve(self._app, scope, receive, send, match)
                return
        await send({"type": "websocket.close", "code": REFUSED + 404, "reason": "No WebSocket is served here."})


class InnerRequests:
    """Requests of a connection to the HTTP routes. ``gone`` is set once the client has disconnected."""

    def __init__(self, app: ASGIApp, scope: Any) -> None:
        self.gone = asyncio.Event()
        self._app = app
        self._scope = scope
        offered = [name for name in scope.get("subprotocols") or () if not name.startswith(BEARER)]
        self.subprotocol = offered[0] if offered else None

    async def request(self, method: str, path: str, body: bytes, query: bytes = b"") -> tuple[int, bytes]:
        """Make one request; return status and body."""
        status, parts = 500, list[bytes]()

        async def on_start(got: int) -> None:
            nonlocal status
            status = got

        async def on_body(chunk: bytes) -> None:
            parts.append(chunk)

        await self.call(method, path, body, on_start, on_body, query)
        return status, b"".join(parts)

    async def call(
        self, method: str, path: str, body: bytes, on_start: OnStart, on_body: OnBody, query: bytes = b""
    ) -> bool:
        """Make a request; return whether its response came to its end, and was not cut."""
        scope = {
            "type": "http",
            "asgi": self._scope["asgi"],
            "http_version": "1.1",
            "method": method,
            "scheme": "https" if self._scope.get("scheme") == "wss" else "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query,
            "root_path": self._scope.get("root_path", ""),
            "headers": self._headers(body),
            "client": self._scope.get("client"),
            "server": self._scope.get("server"),
            "state": dict(self._scope.get("state") or {}),
        }
        given = complete = False

        async def receive() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                await on_start(message["status"])
            elif message["type"] == "http.response.body" and message.get("body"):
                await on_body(message["body"])
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        await self._app(scope, receive, send)  # type: ignore[arg-type]
        return complete

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers of the handshake for a request; a key in a sub-protocol as ``Authorization``."""
        kept = [
            (name, value)
            for name, value in self._scope["headers"]
            if name not in _DROPPED and not name.startswith(b"sec-websocket")
        ]
        key = next((name for name in self._scope.get("subprotocols") or () if name.startswith(BEARER)), None)
        if key is not None and not any(name == b"authorization" for name, _ in kept):
            kept.append((b"authorization", b"Bearer " + key.removeprefix(BEARER).encode()))
        if body:
            kept += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return kept
