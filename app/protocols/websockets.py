"""WebSocket connections (RFC 6455) as clients of the HTTP routes.

What a frame asks for is a request to a route, its answer is a response. So what guards the routes (authentication,
permissions, limits, idempotency) guards connections too. A browser, which can send no headers, names its key as a
sub-protocol, ``bearer.KEY``, next to that of the connection.
"""

import abc
import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base import json_scan
from app.base.errors import AgentServiceError, Limited, Unavailable
from app.base.offload import ByteBudget, offload
from app.base.tasks import Tasks
from app.infra.http.host_and_cors import OriginRule
from app.infra.http.open_streams import OpenStreams
from app.security.access.structs import Principal

BEARER = "bearer."

MAX_FRAME_BYTES = 8 * 1024 * 1024

COUNTED_BYTES = 64 * 1024
MAX_FRAMES = 64 * 1024 * 1024
MAX_FRAMES_EACH = 16 * 1024 * 1024
"""Bytes of frames above ``COUNTED_BYTES`` that this process has and has not answered: of all keys and of one."""
MAX_KEPT = 128 * 1024 * 1024
MAX_KEPT_EACH = 32 * 1024 * 1024
"""Bytes that connections keep between frames: of all keys and of one."""
MAX_WAIT_SECONDS = 10.0
"""Timeout of a frame that waits for its turn; then its connection is closed."""

CLOSED, RESTARTS, TOO_BIG, TRY_LATER, REFUSED = 1000, 1012, 1009, 1013, 4000
"""Close codes; ``REFUSED`` plus an HTTP status means that reconnecting will not help."""

DATA = re.compile(rb"data: ([^\r\n]*)")
"""The data of a server-sent event."""

SEND_SECONDS = 60.0
"""Timeout of one frame that the client does not read; then it is given up."""

INNER = "websocket_request"
"""Key in the state of a request that a connection makes."""

_DROPPED = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"connection", b"upgrade", b"accept"})

_IMPERSONAL = frozenset(
    {b"host", b"origin", b"user-agent", b"x-forwarded-for", b"x-request-id", b"traceparent", b"tracestate"}
)
"""Headers of a foreign page's handshake that say nothing about who its browser's user is."""

OnStart = Callable[[int], Awaitable[None]]
OnBody = Callable[[bytes], Awaitable[None]]
Value = TypeVar("Value")


def is_inner(scope: Any) -> bool:
    """Whether a connection makes the request with ``scope``."""
    return INNER in (scope.get("state") or {})


async def decoded(frame: bytes, decode: Callable[[bytes], Value]) -> Value:
    """Check that a frame is JSON text that may be parsed, and decode it; a large one in a thread.

    Raises ``BadRequest`` or ``Invalid``, and what ``decode`` raises.
    """
    return await offload(len(frame), _checked, frame, decode)


def _checked(frame: bytes, decode: Callable[[bytes], Value]) -> Value:
    json_scan.check(frame, "The frame")
    return decode(frame)


class ReceivedFrame:
    """A frame, and the bytes reserved for it until ``release``."""

    __slots__ = ("_budget", "_holder", "_reserved", "data", "expired")

    def __init__(self, data: bytes, budget: ByteBudget, holder: Hashable, reserved: int) -> None:
        self.data = data
        self.expired = False
        self._budget = budget
        self._holder = holder
        self._reserved = reserved

    def release(self) -> None:
        """Forget the frame: it is answered, or a route has begun to answer it and has what it needs."""
        self.data = b""
        reserved, self._reserved = self._reserved, 0
        if reserved:
            self._budget.release(self._holder, reserved)

    def expire(self) -> None:
        """Forget a large frame whose turn does not come: others need the room. Small ones hold none."""
        if self._reserved:
            self.expired = True
            self.release()


class FrameBudgets(NamedTuple):
    """Memory of the connections of a process: large frames that are not answered, and what is kept between frames."""

    frames: ByteBudget
    kept: ByteBudget


class InnerRequests:
    """Requests of a connection to the HTTP routes. ``gone`` is set once the client has disconnected.

    ``admitted`` is the first request that a route has admitted, with its principal. ``foreign``: a page of another
    origin has opened the connection, so only the key that it names counts, not what its browser adds.
    """

    def __init__(self, app: ASGIApp, scope: Any, *, foreign: bool = False) -> None:
        self.gone = asyncio.Event()
        self.admitted: Any = None
        self._app = app
        self._scope = scope
        self._foreign = foreign
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
        scope: Any = {
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
            "state": {**(self._scope.get("state") or {}), INNER: True},
        }
        given = complete = False

        async def receive() -> Any:
            nonlocal body, given
            if not given:
                given, message = True, {"type": "http.request", "body": body, "more_body": False}
                body = b""  # the request may last for hours
                return message
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                await on_start(message["status"])
            elif message["type"] == "http.response.body" and message.get("body"):
                await on_body(message["body"])
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        await self._app(scope, receive, send)
        if self.admitted is None and isinstance(scope.get("user"), Principal):
            self.admitted = scope
        return complete

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers of the handshake for a request; a key in a sub-protocol as ``Authorization``."""
        key = _key_in(self._scope)
        kept = [
            (name, value)
            for name, value in self._scope["headers"]
            if name not in _DROPPED
            and not name.startswith(b"sec-websocket")
            and (not self._foreign or name in _IMPERSONAL or (key is None and _is_key(name, value)))
        ]
        if key is not None and not any(name == b"authorization" for name, _ in kept):
            kept.append((b"authorization", b"Bearer " + key.removeprefix(BEARER).encode()))
        if body:
            kept += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return kept


class Connection(abc.ABC):
    """One connection to a path. It counts for its key like an open stream (``OpenResponse`` of ``OpenStreams``)."""

    def __init__(
        self,
        requests: InnerRequests,
        streams: OpenStreams,
        budgets: FrameBudgets,
        path: str,
        receive: Receive,
        send: Send,
    ) -> None:
        self.requests = requests
        self.path = path
        self.tasks = Tasks("websocket")
        self.holder: Hashable = None
        self.credential: Hashable = None
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._streams = streams
        self.budgets = budgets
        self._unanswered: list[ReceivedFrame] = []
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._left = False

    @abc.abstractmethod
    async def ask(self) -> int:
        """Ask a route whether the client may connect; return the status, 200 if it may."""

    @abc.abstractmethod
    async def converse(self) -> None:
        """Answer frames until the client leaves, or until ``ended``."""

    async def serve(self) -> None:
        """Serve the connection until its end."""
        message: Any = await self._receive()
        if message["type"] != "websocket.connect":
            return
        if (status := await self._admit()) != 200:
            await self._send({"type": "websocket.close", "code": REFUSED + status, "reason": "refused"})
            return
        self._streams.opened(self)
        try:
            await self._send({"type": "websocket.accept", "subprotocol": self.requests.subprotocol, "headers": []})
            await self.converse()
        finally:
            self._streams.closed(self)
            await self.tasks.aclose()
            for frame in self._unanswered:
                frame.release()
        if self.ended.done() and not self._left:
            code, reason = self.ended.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _admit(self) -> int:
        """Return 200 if a route has admitted the client and its key has room for one more connection."""
        status = await self.ask()
        admitted = self.requests.admitted
        if status != 200 or admitted is None:  # no route has seen it, so no key is checked
            return 404 if status == 200 else status
        self.holder = "websocket", admitted["user"].holder  # its streams count on their own
        self.credential = self._streams.access.credential(admitted)
        try:
            self._streams.admit(self.holder)
        except AgentServiceError as error:
            return error.status
        return 200

    def end(self, code: int, reason: str = "") -> None:
        """Have the connection closed."""
        if not self.ended.done():
            self.ended.set_result((code, reason))

    def stop(self, reason: str) -> None:
        """End it: the process drains, or its credential is no longer valid."""
        if reason == "revoked":
            self.end(REFUSED + 401, reason)
        else:
            self.end(RESTARTS)

    def on_tick(self, now: int) -> None:
        """Handle a tick: pings are the server's, and ``put`` has a timeout of its own."""
        del now

    async def frame(self) -> ReceivedFrame | None:
        """Return the next frame; None if the client has left, or sends one for which there is no room."""
        message: Any = await self._receive()
        if message["type"] != "websocket.receive":
            self._left = True
            self.requests.gone.set()
            return None
        frame: bytes = message.get("bytes") or (message.get("text") or "").encode()
        if len(frame) > MAX_FRAME_BYTES:
            self.end(TOO_BIG, "The frame is too large.")
            return None
        del message
        return await self._reserve(frame)

    async def _reserve(self, data: bytes) -> ReceivedFrame | None:
        """Wait until a large frame has its turn; without one the connection ends."""
        reserved = 0
        if len(data) > COUNTED_BYTES:
            try:
                reserved = await self.budgets.frames.acquire(self.holder, len(data), MAX_WAIT_SECONDS)
            except (Limited, Unavailable) as error:
                self.end(TRY_LATER, str(error))
                return None
        frame = ReceivedFrame(data, self.budgets.frames, self.holder, reserved)
        self._unanswered = [one for one in self._unanswered if one.data] + [frame]
        return frame

    async def put(self, data: bytes) -> None:
        """Send a frame. A client that does not read it in time has left."""
        async with self._sending:
            if self.requests.gone.is_set():
                return
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send({"type": "websocket.send", "text": data.decode(), "bytes": None})
            except TimeoutError:
                self.requests.gone.set()
                self.end(CLOSED, "The client does not read.")


class WebSocketRoutes:
    """ASGI middleware: serve the connections of ``routes``, by what their paths begin with and the pattern of the rest.

    HTTP goes through. ``prefix``: what all paths begin with. With ``origins``, pages of other origins connect by the
    key that they name, not by what their browser adds (RFC 6455, section 10.2).
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[tuple[str, re.Pattern[str], type[Connection]]],
        streams: OpenStreams,
        prefix: str = "",
        origins: OriginRule | None = None,
    ) -> None:
        self._app = app
        self._routes = [(prefix + start, rest, kind) for start, rest, kind in routes]
        self._streams = streams
        self._budgets = FrameBudgets(
            ByteBudget(MAX_FRAMES, each=MAX_FRAMES_EACH, of="large frames are answered"),
            ByteBudget(MAX_KEPT, each=MAX_KEPT_EACH),
        )
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or one request."""
        if scope["type"] != ScopeType.WEBSOCKET:
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        kind = next(
            (kind for start, rest, kind in self._routes if path.startswith(start) and rest.fullmatch(path, len(start))),
            None,
        )
        foreign = self._is_foreign(scope)
        if kind is None:
            await send({"type": "websocket.close", "code": REFUSED + 404, "reason": "No WebSocket is served here."})
        elif foreign and not _names_key(scope):
            await send({"type": "websocket.close", "code": REFUSED + 403, "reason": "Another origin must name a key."})
        else:
            requests = InnerRequests(self._app, scope, foreign=foreign)
            await kind(requests, self._streams, self._budgets, path, receive, send).serve()

    def _is_foreign(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if self._origins is None or origin is None:
            return False
        return not self._origins.may_use(origin, headers.get(b"host", b""))


def _key_in(scope: Any) -> str | None:
    """Return the sub-protocol with a key."""
    return next((name for name in scope.get("subprotocols") or () if name.startswith(BEARER)), None)


def _names_key(scope: Any) -> bool:
    """Whether a handshake has a key that no browser adds by itself."""
    return _key_in(scope) is not None or any(_is_key(name, value) for name, value in scope["headers"])


def _is_key(name: bytes, value: bytes) -> bool:
    """Whether a header is a key; browsers add credentials of other schemes by themselves."""
    return name == b"x-api-key" or (name == b"authorization" and value[:7].lower() == b"bearer ")
