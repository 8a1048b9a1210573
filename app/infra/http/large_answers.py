"""Large JSON responses: sent in slices, bounded per key and process, aborted if the client does not read.

A client that does not read keeps its response in memory. Streams and long polls have their own bounds
(``app.engine.streams.send_budget``); this is for ordinary responses. Those that wait for a run
(``app.infra.http.event_streams.JsonAnswer``) share their room.
"""

import asyncio
from collections.abc import Hashable
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import Limited, Unavailable
from app.infra.http.open_streams import LARGE, SLICE, STUCK, LargeResponses
from app.infra.http.problems import answer_error


class LargeAnswers:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, large: LargeResponses, *, stuck: float = STUCK) -> None:
        self._app = app
        self.large = large
        self.stuck = stuck

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        answer = _Answer(self, scope, receive, send)
        try:
            await self._app(scope, receive, answer)
        finally:
            answer.release()


class _Answer:
    """``send`` of one request. Messages after the application has returned, as of a stream, pass unchanged."""

    __slots__ = ("_holder", "_layer", "_receive", "_reserved", "_returned", "_scope", "_send", "_start", "_stopped")

    def __init__(self, layer: LargeAnswers, scope: Scope, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start: Any = None
        self._holder: Hashable = None
        self._reserved = 0
        self._stopped = False
        self._returned = False

    def release(self) -> None:
        """Release the reserved bytes: the application has returned."""
        self._returned = True
        if self._reserved:
            self._layer.large.release(self._holder, self._reserved)
            self._reserved = 0

    async def __call__(self, message: Any) -> None:
        if self._returned:
            await self._send(message)
        elif self._stopped:
            return
        elif message["type"] == "http.response.start" and _length(message) > LARGE:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            await self._begin(message)

    async def _begin(self, message: Any) -> None:
        start, self._start = self._start, None
        if message.get("more_body", False):  # it comes in parts, one in memory at a time
            await self._send(start)
            await self._send(message)
            return
        try:
            self._holder = getattr(self._scope.get("user"), "holder", None)
            self._reserved = await self._layer.large.reserve(self._holder, _length(start))
        except (Limited, Unavailable) as error:
            self._stopped = True
            await answer_error(self._scope, self._receive, self._send, error)
            return
        await self._send(start)
        body = message["body"]
        try:
            for at in range(0, len(body), SLICE):
                more = at + SLICE < len(body)
                part = {"type": message["type"], "body": body[at : at + SLICE], "more_body": more}
                async with asyncio.timeout(self._layer.stuck):
                    await self._send(part)  # type: ignore[arg-type]
        except TimeoutError:
            self._stopped = True  # an incomplete response cuts the connection


def _length(start: Any) -> int:
    return next((int(value) for name, value in start["headers"] if name.lower() == b"content-length"), 0)
