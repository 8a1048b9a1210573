"""Request bodies: read whole within a timeout and a size limit, and checked to be JSON text that can be stored.

The check works on bytes, before any parser (``app.base.json_scan``). A body is read when a handler asks for it, so a
request without a valid key never has its body read.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Hashable
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import Limited, Unavailable
from app.base.json_scan import scan
from app.base.offload import ByteBudget, body_bytes

MAX_BODY_BYTES = 1024 * 1024
MAX_MESSAGES_BODY_BYTES = 8 * 1024 * 1024
"""Bytes for routes with messages, which may contain images, unless a setting says otherwise."""
MAX_IN_FLIGHT = 16 * 1024 * 1024
"""Bytes of large bodies (above ``MAX_BODY_BYTES``) that this process reads and serves at once."""
MAX_ARRIVING = 64 * 1024 * 1024
MAX_ARRIVING_EACH = 16 * 1024 * 1024
"""Bytes of smaller bodies that have arrived in part, and of uploads: of all keys and of one."""
UPLOAD_BYTES = 2 * 1024 * 1024
"""Bytes in memory of an upload in progress, whatever its size (``app.features.documents.uploads``)."""
MAX_WAIT_SECONDS = 10.0
"""Timeout of a body that waits for its turn."""
DISCARD_SECONDS = 5.0
MAX_DISCARDED = 32 * 1024 * 1024
"""Limits for discarding a body that is too large: a client, or proxy, that sends before it reads gets the response."""
SECONDS = 10.0
"""Timeout of the whole body."""
EMPTY_OBJECT = b"{}"
"""Stands for a missing body, so that a body with only optional fields can be left out."""

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_MESSAGES = re.compile(
    r"/(?:runs|state|chat|responses|conversations|ag-ui|copilotkit|a2a|mcp|commands)(?:/|$)|/threads/?$"
)
_JSON = re.compile(rb"application/(?:[^;,\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


UPLOADS = {"uploads": True}
"""Member of the ``opt`` of handlers that read their body themselves, as it arrives (``app.infra.http.uploads``).

What a body may be depends on the route that has matched, never on the path, whose parameters are the client's.
"""


def takes_messages(template: str) -> bool:
    """Whether a route takes messages and so a larger body, by its path template: runs, states, new threads."""
    return _MESSAGES.search(template) is not None


def has_whole_body(scope: Any) -> bool:
    """Whether the body of a request is read whole, unlike an upload's; its route has matched."""
    return scope["method"] not in WITHOUT_BODY and not is_upload(scope)


def is_upload(scope: Any) -> bool:
    """Whether the route that has matched a request takes an upload."""
    handler = scope.get("route_handler")
    return handler is not None and "uploads" in handler.opt


class RequestBodyMiddleware:
    """ASGI middleware around the application: ``receive`` returns a whole, checked body.

    Errors are raised where the body is read, so the application's exception handlers respond to them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        large: Callable[[str], bool] = takes_messages,
        max_bytes: int = MAX_BODY_BYTES,
        max_large_bytes: int = MAX_MESSAGES_BODY_BYTES,
        seconds: float = SECONDS,
    ) -> None:
        self.app = app
        self.large = large
        self.max_bytes = max_bytes
        self.max_large_bytes = max_large_bytes
        self.seconds = seconds
        self.in_flight = ByteBudget(max(MAX_IN_FLIGHT, max_large_bytes), each=max_large_bytes)
        self.arriving = ByteBudget(MAX_ARRIVING, each=MAX_ARRIVING_EACH, of="request bodies arrive")
        self.uploads = ByteBudget(MAX_ARRIVING, each=MAX_ARRIVING_EACH, of="uploads arrive")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP or scope["method"] in WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        receiver = _BodyReceiver(scope, receive, self)
        try:
            await self.app(scope, receiver, send)
        finally:
            receiver.release()


class _BodyReceiver:
    """``receive`` of one request, with bytes reserved from budgets until it is served.

    Returns the whole body first, then the server's messages. The bytes of an upload pass through as they arrive.
    """

    __slots__ = ("_limits", "_read", "_receive", "_reserved", "_scope", "_uploads")

    def __init__(self, scope: Any, receive: Receive, limits: RequestBodyMiddleware) -> None:
        self._scope = scope
        self._receive = receive
        self._limits = limits
        self._read = self._uploads = False
        self._reserved: list[tuple[ByteBudget, Hashable, int]] = []

    async def __call__(self) -> Any:
        """Return the next message of the request, whose route has matched by now."""
        if not self._read:
            self._read = True
            self._uploads = is_upload(self._scope)
            if not self._uploads:
                return await self._whole()
            await self._reserve(self._limits.uploads, UPLOAD_BYTES)
        message: Any = await self._receive()
        if self._uploads and not message.get("more_body", False):
            self.release()
        return message

    def release(self) -> None:
        """Release the reserved bytes."""
        for budget, *_ in list(self._reserved):
            self._release(budget)

    def _release(self, of: ByteBudget) -> None:
        for budget, holder, size in self._reserved:
            if budget is of:
                budget.release(holder, size)
        self._reserved = [one for one in self._reserved if one[0] is not of]

    async def _reserve(self, budget: ByteBudget, size: int) -> None:
        """Wait for the body's turn. Raises ``Limited``, ``Unavailable``."""
        holder = getattr(self._scope.get("user"), "holder", None)
        try:
            self._reserved.append((budget, holder, await budget.acquire(holder, size, MAX_WAIT_SECONDS)))
        except (Limited, Unavailable):
            await self._discard(self._limits.seconds, self._limits.max_large_bytes)
            raise

    async def _discard(self, seconds: float, max_bytes: int) -> None:
        """Read and discard up to ``max_bytes`` of the body: a client that still sends would not see the response."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                message: Any = {"more_body": True}
                while message.get("more_body", False) and max_bytes > 0:
                    message = await self._receive()
                    max_bytes -= len(message.get("body", b""))

    async def _whole(self) -> Any:
        limits = self._limits
        max_bytes = limits.max_large_bytes if limits.large(self._scope.get("path_template", "")) else limits.max_bytes
        try:
            length = self._check_headers(max_bytes)
            if length > limits.max_bytes:
                await self._reserve(limits.in_flight, length)
            async with asyncio.timeout(limits.seconds) as timer:
                body = await self._collect(max_bytes, length, timer)
        except _TooLarge:
            await self._discard(DISCARD_SECONDS, MAX_DISCARDED)
            raise
        except TimeoutError:
            raise HTTPException(
                f"The body did not arrive within {limits.seconds:g} seconds.", status_code=408
            ) from None
        self._release(limits.arriving)  # once it has arrived, only a large body counts until it is served
        if body:
            _check_type(_type_of(self._scope))
            for _ in scan(body):
                await asyncio.sleep(0)
            body_bytes.set(len(body))
        return {"type": "http.request", "body": body or EMPTY_OBJECT, "more_body": False}

    def _check_headers(self, max_bytes: int) -> int:
        """Reject by 413 and 415 what the headers rule out; return the announced length, 0 if there is none."""
        length = 0
        for name, value in self._scope["headers"]:
            if name == b"content-length" and value.isdigit():
                length = int(value)
                if length > max_bytes:
                    raise _TooLarge(max_bytes)
                if length:
                    _check_type(_type_of(self._scope))
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise HTTPException("Send the body without a Content-Encoding.", status_code=415)
        return length

    async def _collect(self, max_bytes: int, length: int, timer: asyncio.Timeout) -> bytes | bytearray:
        body: bytes | bytearray = b""
        bounded = length > self._limits.max_bytes
        more = True
        while more:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                raise HTTPException("The connection was closed before the whole body arrived.", status_code=400)
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > max_bytes:
                raise _TooLarge(max_bytes)
            more = message.get("more_body", False)
            if not bounded and len(body) + len(chunk) > self._limits.max_bytes:
                bounded = True
                await self._pause(timer, self._limits.in_flight, max_bytes)
            elif more and not self._reserved:
                await self._pause(timer, self._limits.arriving, length or self._limits.max_bytes)
            if not body:
                body = chunk
            elif chunk:
                if isinstance(body, bytes):
                    body = bytearray(body)
                body += chunk
        return body

    async def _pause(self, timer: asyncio.Timeout, budget: ByteBudget, size: int) -> None:
        """Wait for the turn of an arriving body; that time does not count for its timeout."""
        timer.reschedule(None)
        await self._reserve(budget, size)
        timer.reschedule(asyncio.get_running_loop().time() + self._limits.seconds)


def _type_of(scope: Any) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"content-type"), None)


def _is_json(kind: bytes | None) -> bool:
    return kind == b"application/json" or (kind is not None and _JSON.fullmatch(kind) is not None)


def _check_type(kind: bytes | None) -> None:
    if not _is_json(kind):
        given = "without a Content-Type" if not kind else f"as {kind.decode('latin-1')[:80]}"
        raise HTTPException(f"Send the body as application/json, not {given}.", status_code=415)


async def only_json(scope: Scope, receive: Receive) -> Receive:
    """Reject a body that is not JSON, whether the route reads it or not. Returns the ``receive`` to use from then on.

    Browsers send bodies of simple types to any site without a preflight. Raises 415, and what reading raises.
    """
    if not has_whole_body(scope) or not _may_have_body(scope) or _is_json(_type_of(scope)):
        return receive
    return repeated(await receive(), receive)


def _may_have_body(scope: Any) -> bool:
    return scope["http_version"] not in ("1.0", "1.1") or any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def repeated(message: Any, rest: Receive) -> Receive:
    """Return a ``receive`` that yields ``message`` again, and then continues with ``rest``."""
    given = False

    async def receive() -> Any:
        nonlocal given
        if not given:
            given = True
            return message
        return await rest()

    return receive


class _TooLarge(HTTPException):
    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body is larger than the {max_bytes} bytes that this route takes.", status_code=413)
