"""Request bodies: read whole within a deadline and a size, refused when they are no JSON text that we can keep.

The check is by bytes, before any parser sees them (``app.base.json_scan``). A body is read when a handler asks for it,
so a request without a valid key never has its body read.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Hashable
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.bulk import ByteBudget, body_bytes
from app.base.errors import Limited, Unavailable
from app.base.json_scan import scan

MOST = 1024 * 1024
MOST_MESSAGES = 32 * 1024 * 1024
"""Bytes for the routes that take messages: these may carry images."""
MAX_IN_FLIGHT = 48 * 1024 * 1024
"""Bytes of large bodies (above ``MOST``) that this process reads and serves at once."""
MAX_WAIT_SECONDS = 10.0
"""For the turn of a large body."""
SECONDS = 10.0
"""For the whole body to arrive."""
NOTHING = b"{}"
"""What a request without a body reads as, so that a body whose fields are all optional can be left out."""

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_FILES = re.compile(r"/documents/?$")
_MESSAGES = re.compile(r"/(?:runs|state)(?:/|$)|/threads/?$")
_JSON = re.compile(rb"application/(?:[^;,\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


def takes_messages(path: str) -> bool:
    """Whether the route at ``path`` takes messages and so a larger body: runs, states, new threads."""
    return _MESSAGES.search(path) is not None


def has_whole_body(scope: Any) -> bool:
    """Whether a request may have a body that is read whole: a POST that brings a file has none (``app.web.files``)."""
    return scope["method"] not in WITHOUT_BODY and not brings_file(scope)


def brings_file(scope: Any) -> bool:
    """Whether a request uploads a file."""
    return scope["method"] == "POST" and _FILES.search(scope["path"]) is not None


class Bodies:
    """ASGI middleware around the application: what ``receive`` gives inside is a whole, checked body.

    Its errors are raised where the body is asked for, so the application's exception handlers answer them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        large: Callable[[str], bool] = takes_messages,
        most: int = MOST,
        most_large: int = MOST_MESSAGES,
        seconds: float = SECONDS,
    ) -> None:
        self.app = app
        self.large = large
        self.most = most
        self.most_large = most_large
        self.seconds = seconds
        self.in_flight = ByteBudget(max(MAX_IN_FLIGHT, most_large), each=most_large)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP or not has_whole_body(scope):
            await self.app(scope, receive, send)
            return
        reader = _Reader(scope, receive, self)
        try:
            await self.app(scope, reader, send)
        finally:
            reader.release()


class _Reader:
    """``receive`` of one request: the whole body first, then what the server says."""

    __slots__ = ("_holder", "_limits", "_read", "_receive", "_reserved", "_scope")

    def __init__(self, scope: Any, receive: Receive, limits: Bodies) -> None:
        self._scope = scope
        self._receive = receive
        self._limits = limits
        self._read = False
        self._holder: Hashable = None
        self._reserved = 0

    def release(self) -> None:
        """The request is served: give back what its body was allowed to take."""
        if self._reserved:
            self._limits.in_flight.release(self._holder, self._reserved)
            self._reserved = 0

    async def _reserve(self, size: int) -> None:
        """Wait for the turn of a large body. Raises ``Limited``, ``Unavailable``."""
        self._holder = getattr(self._scope.get("user"), "holder", None)
        try:
            self._reserved = await self._limits.in_flight.acquire(self._holder, size, MAX_WAIT_SECONDS)
        except (Limited, Unavailable):
            await self._discard()
            raise

    async def _discard(self) -> None:
        """Read the body and keep nothing: a client that is still sending would not see the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.seconds):
                message: Any = {"more_body": True}
                while message.get("more_body", False):
                    message = await self._receive()

    async def __call__(self) -> Any:
        if self._read:
            return await self._receive()
        self._read = True
        limits = self._limits
        most = limits.most_large if limits.large(self._scope["path"]) else limits.most
        length = self._check_headers(most)
        if length > limits.most:
            await self._reserve(length)
        try:
            async with asyncio.timeout(limits.seconds):
                body = await self._collect(most)
        except TimeoutError:
            raise HTTPException(
                f"The body did not arrive within {limits.seconds:g} seconds.", status_code=408
            ) from None
        if body:
            _check_type(_type_of(self._scope))
            for _ in scan(body):
                await asyncio.sleep(0)
            body_bytes.set(len(body))
        return {"type": "http.request", "body": body or NOTHING, "more_body": False}

    def _check_headers(self, most: int) -> int:
        """Refuse, by 413 and 415, what the headers alone rule out; the length that they announce, if they do."""
        length = 0
        for name, value in self._scope["headers"]:
            if name == b"content-length" and value.isdigit():
                length = int(value)
                if length > most:
                    raise _too_large(most)
                if length:
                    _check_type(_type_of(self._scope))
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise HTTPException("Send the body without a Content-Encoding.", status_code=415)
        return length

    async def _collect(self, most: int) -> bytes | bytearray:
        body: bytes | bytearray = b""
        more = True
        while more:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                raise HTTPException("The connection closed before the whole body came.", status_code=400)
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > most:
                raise _too_large(most)
            more = message.get("more_body", False)
            if not self._reserved and len(body) + len(chunk) > self._limits.most:
                await self._reserve(most)
            if not body:
                body = chunk
            elif chunk:
                if isinstance(body, bytes):
                    body = bytearray(body)
                body += chunk
        return body


def _type_of(scope: Any) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"content-type"), None)


def _is_json(kind: bytes | None) -> bool:
    return kind == b"application/json" or (kind is not None and _JSON.fullmatch(kind) is not None)


def _check_type(kind: bytes | None) -> None:
    if not _is_json(kind):
        given = "without a Content-Type" if not kind else f"as {kind.decode('latin-1')[:80]}"
        raise HTTPException(f"Send the body as application/json, not {given}.", status_code=415)


async def only_json(scope: Scope, receive: Receive) -> Receive:
    """Refuse a body of another type, whether the route reads it or not. Returns what to receive from then on.

    A browser sends a body of a simple type to any site without asking first. Raises 415, and what reading raises.
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
    """Receive ``message`` once more, and then from ``rest``."""
    given = False

    async def receive() -> Any:
        nonlocal given
        if not given:
            given = True
            return message
        return await rest()

    return receive


def _too_large(most: int) -> HTTPException:
    return HTTPException(f"The body is larger than the {most} bytes that this route takes.", status_code=413)
