"""WebSocket connections to a thread: https://github.com/langchain-ai/agent-protocol (RFC 6455).

A connection is a client of the protocol's HTTP routes: each frame is a command, each subscription a stream. So what
guards the routes (authentication, permissions, limits, idempotency) guards connections too.

A browser, which can send no headers, names its key as a sub-protocol: ``["agent-protocol", "bearer.KEY"]``.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.ids import new_id
from app.base.tasks import Tasks
from app.protocols.langgraph_v2.structs import Command, Failure, Success

PATH = re.compile(r"(?P<thread>.*/threads/[^/]+)/stream(?:/events)?")
BEARER = "bearer."

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_SUBSCRIPTIONS = 16
"""Bounds of a connection."""

IDLE_SECONDS = 60.0
"""A connection without a subscription is closed after so long without a frame."""

GOING_AWAY, RESTARTS, TOO_BIG, REFUSED = 1000, 1012, 1009, 4000
"""Close codes; ``REFUSED`` plus an HTTP status means that reconnecting will not help."""

_DATA = re.compile(rb"data: ([^\r\n]*)")
_DROPPED = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"connection", b"upgrade", b"accept"})

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode

Close = tuple[int, str]


class WebSocketBridge:
    """ASGI middleware that serves WebSocket connections by HTTP requests to ``app``; others pass through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.WEBSOCKET:
            await self._app(scope, receive, send)
            return
        match = PATH.fullmatch(scope["path"])
        if match is None:
            await send({"type": "websocket.close", "code": REFUSED + 404, "reason": "No WebSocket is served here."})
            return
        await _Connection(self._app, scope, receive, send, match["thread"]).serve()


class _Connection:
    def __init__(self, app: ASGIApp, scope: Any, receive: Receive, send: Send, thread: str) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._thread = thread
        self._tasks = Tasks("websocket")
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._end: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        offered = [name for name in scope.get("subprotocols") or () if not name.startswith(BEARER)]
        self._accepted = offered[0] if offered else None

    async def serve(self) -> None:
        message: Any = await self._receive()
        if message["type"] != "websocket.connect":
            return
        status, _ = await self._request("GET", f"{self._thread}/runs", b"", b"limit=1")
        if status != 200:
            await self._send({"type": "websocket.close", "code": REFUSED + status, "reason": "refused"})
            return
        await self._send({"type": "websocket.accept", "subprotocol": self._accepted, "headers": []})
        reader = self._tasks.start(self._read(), name="read")
        try:
            await asyncio.wait([reader, self._end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._tasks.aclose()
        if self._end.done():
            code, reason = self._end.result()
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def _close(self, code: int, reason: str = "") -> None:
        if not self._end.done():
            self._end.set_result((code, reason))

    async def _read(self) -> None:
        while not self._end.done():
            try:
                async with asyncio.timeout(None if self._subscriptions else IDLE_SECONDS):
                    message: Any = await self._receive()
            except TimeoutError:
                self._close(GOING_AWAY, "idle")
                return
            if message["type"] != "websocket.receive":
                return
            frame = message.get("bytes") or (message.get("text") or "").encode()
            if len(frame) > MAX_FRAME_BYTES:
                self._close(TOO_BIG, "The frame is too large.")
                return
            await self._put(await self._answer(frame))

    async def _answer(self, frame: bytes) -> bytes:
        try:
            command = _decode(frame)
        except msgspec.MsgspecError:
            message = 'The frame is not a command: send {"id", "method", "params"} as JSON.'
            return encode(Failure(id=None, error="invalid_argument", message=message))
        match command.method:
            case "subscription.subscribe":
                return await self._subscribe(command)
            case "subscription.unsubscribe":
                return self._unsubscribe(command)
            case "subscription.reconnect":
                wanted = command.params.get("subscriptions")
                known = (
                    isinstance(wanted, list) and bool(wanted) and self._subscriptions.keys() >= set(map(str, wanted))
                )
                return encode(Success(id=command.id, result={"restored": known}))
        status, body = await self._request("POST", f"{self._thread}/commands", frame)
        return body if status == 200 else encode(_failure(command.id, status, body))

    async def _subscribe(self, command: Command) -> bytes:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            message = f"A connection has at most {MAX_SUBSCRIPTIONS} subscriptions: end one."
            return encode(Failure(id=command.id, error="invalid_argument", message=message))
        subscription = str(new_id())
        begun: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        stream = self._follow(subscription, encode(command.params), begun)
        self._subscriptions[subscription] = self._tasks.start(stream, name="subscription")
        status, body = await begun
        if status == 200:
            return encode(Success(id=command.id, result={"subscription_id": subscription}))
        if status in {401, 403, 404}:
            self._close(REFUSED + status)
        return encode(_failure(command.id, status, body))

    def _unsubscribe(self, command: Command) -> bytes:
        task = self._subscriptions.pop(str(command.params.get("subscription_id")), None)
        if task is None:
            message = "This connection has no such subscription: send the subscription_id of subscription.subscribe."
            return encode(Failure(id=command.id, error="no_such_subscription", message=message))
        task.cancel()
        return encode(Success(id=command.id, result={}))

    async def _follow(self, subscription: str, body: bytes, begun: "asyncio.Future[tuple[int, bytes]]") -> None:
        """Send the events of a stream until it ends; then close the connection, as its end is that of the thread."""
        status, head = 500, b""

        async def on_start(got: int) -> None:
            nonlocal status
            status = got

        async def on_body(chunk: bytes) -> None:
            nonlocal head
            if status != 200:
                head += chunk
                return
            if not begun.done():
                begun.set_result((status, b""))
            for event in chunk.split(b"\r\n\r\n"):
                if (data := _DATA.search(event)) is not None:
                    await self._put(data[1])

        try:
            complete = await self._call("POST", f"{self._thread}/stream/events", body, b"", on_start, on_body)
        finally:
            self._subscriptions.pop(subscription, None)
            if not begun.done():
                begun.set_result((status, head))
        if status == 200:
            self._close(GOING_AWAY if complete else RESTARTS)

    async def _put(self, data: bytes) -> None:
        async with self._sending:
            await self._send({"type": "websocket.send", "text": data.decode(), "bytes": None})

    async def _request(self, method: str, path: str, body: bytes, query: bytes = b"") -> tuple[int, bytes]:
        """Make one request; return status and body."""
        status, parts = 500, list[bytes]()

        async def on_start(got: int) -> None:
            nonlocal status
            status = got

        async def on_body(chunk: bytes) -> None:
            parts.append(chunk)

        await self._call(method, path, body, query, on_start, on_body)
        return status, b"".join(parts)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        query: bytes,
        on_start: Callable[[int], Awaitable[None]],
        on_body: Callable[[bytes], Awaitable[None]],
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
            "headers": _headers(self._scope, body),
            "client": self._scope.get("client"),
            "server": self._scope.get("server"),
            "state": dict(self._scope.get("state") or {}),
        }
        given = complete = False
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def receive() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await never

        async def send(message: Any) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                await on_start(message["status"])
            elif message["type"] == "http.response.body" and message.get("body"):
                await on_body(message["body"])
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        await self._app(scope, receive, send)  # type: ignore[arg-type]
        return complete


def _headers(scope: Any, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of the handshake for a request with ``body``; a key in a sub-protocol as ``Authorization``."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name not in _DROPPED and not name.startswith(b"sec-websocket")
    ]
    key = next((name for name in scope.get("subprotocols") or () if name.startswith(BEARER)), None)
    if key is not None and not any(name == b"authorization" for name, _ in kept):
        kept.append((b"authorization", b"Bearer " + key.removeprefix(BEARER).encode()))
    if body:
        kept += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return kept


def _failure(command_id: int, status: int, body: bytes) -> Failure:
    try:
        detail = str(msgspec.json.decode(body, type=dict[str, Any])["detail"])
    except (msgspec.MsgspecError, KeyError):
        detail = f"The request failed with status {status}."
    code: Any = "permission_denied" if status in {401, 403} else "invalid_argument" if status < 500 else "unknown_error"
    return Failure(id=command_id, error=code, message=detail)
