"""Request bodies: read whole within a deadline and a size, refused when they are no JSON text that we can keep.

The check is by bytes, before any parser sees them (``app.base.json_scan``). A body is read when a handler asks for it,
so a request without a valid key never has its body read.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.json_scan import scan

MOST = 1024 * 1024
MOST_MESSAGES = 32 * 1024 * 1024
"""Bytes for the routes that take messages: these may carry images."""
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
    method = scope["method"]
    return method not in WITHOUT_BODY and not (method == "POST" and _FILES.search(scope["path"]))


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == ScopeType.HTTP and has_whole_body(scope):
            receive = _Reader(scope, receive, self)
        await self.app(scope, receive, send)


class _Reader:
    """``receive`` of one request: the whole body first, then what the server says."""

    __slots__ = ("_limits", "_read", "_receive", "_scope")

    def __init__(self, scope: Any, receive: Receive, limits: Bodies) -> None:
        self._scope = scope
        self._receive = receive
        self._limits = limits
        self._read = False

    async def __call__(self) -> Any:
        if self._read:
            return await self._receive()
        self._read = True
        limits = self._limits
        most = limits.most_large if limits.large(self._scope["path"]) else limits.most
        kind = self._look_at_headers(most)
        try:
            async with asyncio.timeout(limits.seconds):
                body = await self._collect(most)
        except TimeoutError:
            raise HTTPException(
                f"The body did not arrive within {limits.seconds:g} seconds.", status_code=408
            ) from None
        if body:
            if kind is not None and kind != b"application/json" and not _JSON.fullmatch(kind):
                said = kind.decode("latin-1")[:80]
                raise HTTPException(f"Send the body as application/json, not as {said}.", status_code=415)
            for _ in scan(body):
                await asyncio.sleep(0)
        return {"type": "http.request", "body": body or NOTHING, "more_body": False}

    def _look_at_headers(self, most: int) -> bytes | None:
        """The content type, if one is given. Raises 413 and 415 for what the headers alone rule out."""
        kind = None
        for name, value in self._scope["headers"]:
            if name == b"content-type":
                kind = value
            elif name == b"content-length" and value.isdigit() and int(value) > most:
                raise _too_large(most)
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise HTTPException("Send the body without a Content-Encoding.", status_code=415)
        return kind

    async def _collect(self, most: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                raise HTTPException("The connection closed before the whole body came.", status_code=400)
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most:
                raise _too_large(most)
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(most: int) -> HTTPException:
    return HTTPException(f"The body is larger than the {most} bytes that this route takes.", status_code=413)
