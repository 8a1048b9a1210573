"""Request bodies: read whole within a deadline and a size, refused when they are no JSON text that we can keep.

The check is by bytes, before any parser sees them: a parser recurses and stops for nobody, and PostgreSQL takes neither
NUL nor half a surrogate pair. A body is read when a handler asks for it, so a request without a valid key never has its
body read.
"""

import asyncio
import codecs
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import BadRequest, Invalid
from app.web.decoding import INVALID_JSON

MOST = 1024 * 1024
MOST_MESSAGES = 32 * 1024 * 1024
"""Bytes for the routes that take messages: these may carry images."""
SECONDS = 10.0
"""For the whole body to arrive."""
NOTHING = b"{}"
"""What a request without a body reads as, so that a body whose fields are all optional can be left out."""
DEEPEST = 64
"""Levels of arrays and objects."""
MOST_PARTS = 250_000
MOST_VALUES = 2_000_000
"""Arrays and objects in a body, and values: what a parser takes a tenth of a second for."""
PIECE = 1 << 18
"""Bytes that are looked through before others have their turn."""

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_FILES = re.compile(r"/documents/?$")
_MESSAGES = re.compile(r"/(?:runs|state)(?:/|$)|/threads/?$")
_JSON = re.compile(rb"application/(?:[^;,\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},'))
_AS_STEPS = bytes.maketrans(b"[]{}", b"\1\0\1\0")
UP = b"\1"
_STEPS = (-1, 1)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_KEPT = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?!0000|[dD][89a-fA-F])(?=....)|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)++", re.DOTALL
)
"""Whatever may stand in a text. It looks four bytes ahead, so that it stops before an escape that a piece cuts."""


def takes_messages(path: str) -> bool:
    """Whether the route at ``path`` takes messages and so a larger body: runs, states, new threads."""
    return _MESSAGES.search(path) is not None


def has_whole_body(scope: Any) -> bool:
    """Whether a request may have a body that is read whole: a POST that brings a file has none (``app.web.files``)."""
    method = scope["method"]
    return method not in WITHOUT_BODY and not (method == "POST" and _FILES.search(scope["path"]))


def check(body: bytes) -> None:
    """Refuse bytes that are no JSON text that we can keep. Raises ``BadRequest``, or ``Invalid`` for unequal brackets.

    Cost: 1 µs for a small body, 2 to 5 ms a MB for text, 20 ms a MB for nothing but brackets.
    """
    for _ in checked(body):
        pass


def checked(body: bytes) -> Iterator[None]:
    """``check`` piece by piece: a large body must not keep others waiting."""
    if not body.isascii():
        yield from _check_characters(body)
    if b"\x00" in body:
        raise BadRequest("The body has a NUL byte, which cannot be stored.")
    if b"\\" in body and any(escape in body for escape in (b"\\u0000", b"\\ud", b"\\uD")):
        yield from _check_escapes(body)
    if len(body) > PIECE:
        yield
    if body.count(b"[") + body.count(b"{") > DEEPEST or (len(body) > MOST_VALUES and body.count(b",") > MOST_VALUES):
        yield from _check_structure(body)


def _check_characters(body: bytes) -> Iterator[None]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, len(body), PIECE):
        held = len(decoder.getstate()[0])  # the beginning of a character, at the end of the piece before
        try:
            decoder.decode(body[at : at + PIECE], final=at + PIECE >= len(body))
        except UnicodeDecodeError as error:
            raise BadRequest(f"The body is not UTF-8 (byte {at - held + error.start}).") from error
        if at + PIECE < len(body):
            yield


def _check_escapes(body: bytes) -> Iterator[None]:
    """Refuse escapes that stand for no character that can be stored. An escaped backslash before a ``u`` is none."""
    at = 0
    while (match := _KEPT.match(body, at, at + PIECE)) is not None and match.end() > at:
        at = match.end()
        if at < len(body):
            yield
    if body.startswith(b"\\u0000", at):
        raise BadRequest("The body has the escape \\u0000, which cannot be stored.")
    if _HALF.match(body, at):
        raise BadRequest("The body has half a surrogate pair (\\ud800 to \\udfff), which is no character.")


def _check_structure(body: bytes) -> Iterator[None]:
    """Find how deep the brackets nest, and how many there are, without walking through the text between them.

    Of each piece, escapes and all but quotes, brackets and commas are dropped; the rest is cut at the quotes: every
    second part is inside a string. (Two neighbouring quotes can go first: that changes nothing for what follows.)
    """
    inside = False
    depth = opened = values = at = 0
    while at < len(body):
        piece = body[at : at + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = body[at : at + PIECE + 1]  # a backslash and what it escapes stay together
        at += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        plain = piece.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
        parts = plain.split(b'"')
        outside = b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0
        brackets = outside.translate(_AS_STEPS, b",")
        values += len(outside) - len(brackets)
        opened += brackets.count(UP)
        depth = _nested(brackets, depth)
        if opened > MOST_PARTS or values > MOST_VALUES:
            raise BadRequest(f"The body has more than {MOST_PARTS:,} arrays and objects, or {MOST_VALUES:,} values.")
        if at < len(body):
            yield
    if depth:
        raise Invalid(f"{INVALID_JSON}: brackets are left open or closed twice.")


def _nested(brackets: bytes, depth: int) -> int:
    """The depth after ``brackets``, that before being ``depth``. Raises as ``check`` does."""
    if not brackets:
        return depth
    levels = list(accumulate(map(_STEPS.__getitem__, brackets), initial=depth))
    if max(levels) > DEEPEST:
        raise BadRequest(f"The body nests deeper than {DEEPEST} levels.")
    if min(levels) < 0:
        raise Invalid(f"{INVALID_JSON}: brackets are left open or closed twice.")
    return levels[-1]


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
            for _ in checked(body):
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
