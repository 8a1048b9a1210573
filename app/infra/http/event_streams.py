"""Responses that stay open: server-sent events, and long polls for JSON.

A handler returns an ``EventStream`` or a ``JsonWait``. One timer of ``OpenStreams`` serves all: it sends heartbeats,
detects clients that disconnected or stopped reading, and ends all streams when the process drains. A stream that
outlives a tick costs a task that waits for the disconnect. It is served by the outermost layer after all others have
returned, and its request is released once its headers are sent, so it holds little memory.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import msgspec
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec
from litestar.types import Receive, Scope, Send

from app.base.errors import BadRequest, Invalid, Unauthenticated, Unavailable
from app.infra.http.open_streams import SLICE, OpenStreams
from app.infra.http.problems import answer_error
from app.infra.http.response_detacher import ResponseDetacher, detacher_of, release_scope

CHUNKS_PER_YIELD = 16
"""Chunks after which a stream yields to the event loop even if neither its source nor its reader waits."""

CLOSE_TIMEOUT_SECONDS = 1.0
"""Timeout of the last frame when the server ends a stream."""

REVOKED = "The API key was revoked, or the credential has expired: send another one."
_NO_ACCESS = {"error": "Unauthenticated", "message": REVOKED}

encode = msgspec.json.Encoder().encode

OnDisconnect = Callable[[], Awaitable[None]]

EVENT_STREAM = {200: ResponseSpec(str, media_type="text/event-stream", description="Events", generate_examples=False)}
"""``responses`` of handlers that return an ``EventStream``, for the OpenAPI document."""


def frame(event: str, data: bytes, event_id: str) -> bytes:
    """Encode a server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html

    ``data`` is JSON; line breaks in it become ``data`` lines of their own, so it cannot forge a field.
    """
    if b"\n" in data or b"\r" in data:
        data = b"\r\ndata: ".join(data.splitlines())
    return b"event: %b\r\ndata: %b\r\nid: %b\r\n\r\n" % (event.encode(), data, event_id.encode())


class Pieces(Protocol):
    """A body in pieces, which stay in memory until ``release`` is called."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """Its bytes."""
        ...

    @property
    def release(self) -> Callable[[], None]:
        """Call it when they are sent."""
        ...


class OpenResponse:
    """An ASGI response that ``OpenStreams`` manages."""

    __slots__ = (
        "_beat",
        "_begun",
        "_closed",
        "_detacher",
        "_ended",
        "_error_headers",
        "_headers",
        "_last",
        "_on_disconnect",
        "_receive",
        "_scope",
        "_send",
        "_sending",
        "_streams",
        "_task",
        "_watcher",
        "credential",
        "holder",
    )  # fmt: skip
    kind = b""
    caching = b"no-store"
    heartbeat = b""

    def __init__(
        self,
        streams: OpenStreams,
        headers: Mapping[str, str] | None,
        on_disconnect: OnDisconnect | None,
        holder: Hashable,
    ) -> None:
        self._streams = streams
        self._detacher: ResponseDetacher | None = None
        self.holder = holder
        self.credential: Hashable = None
        self._error_headers: Mapping[str, str] = {}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        self._on_disconnect = on_disconnect
        self._ended = ""  # why it was stopped: gone, stuck, drain or revoked
        self._begun = False
        self._closed = False
        self._sending = False
        self._last = 0
        self._beat: asyncio.Task[None] | None = None
        self._watcher: Any = None  # a task, or a future of the server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it to the outermost layer; serve it here if there is none."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._detacher = detacher_of(scope)
        self.credential = self._streams.access.credential(scope)
        if self._detacher is None:
            await self.serve()
        else:
            self._receive = self._detacher.plain_receive
            self._detacher.detached = self

    def failing_with(self, headers: Mapping[str, str]) -> Self:
        """Return this response; an error that prevents it has ``headers``, unless the server stops."""
        self._error_headers = headers
        return self

    async def refuse(self, error: Exception) -> None:
        """Respond with ``error`` as a problem, before the response has begun."""
        headers = {} if self._ended else self._error_headers
        await answer_error(self._scope, self._receive, self._send, error, headers)

    async def serve(self) -> None:
        """Serve it until its end, or until the client disconnects."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._last = self._streams.now
        self._streams.opened(self)
        if self._streams.draining:
            self.stop("drain")
        try:
            await self._serve()
        except asyncio.CancelledError:
            if not self._ended or task.uncancel() > 0:
                raise
        finally:
            self._streams.closed(self)
            await self._leave()
        if self._ended == "revoked":
            await self._send_last_frame(self._revoked())
        if self._ended == "drain":
            await self._send_last_frame(self._drained())
        elif self._ended and self._on_disconnect is not None:
            await self._on_disconnect()

    def stop(self, reason: str) -> None:
        """Cancel it, wherever it waits."""
        if not self._ended and not self._closed:
            self._ended = reason
            self._task.cancel()

    def on_tick(self, now: int) -> None:
        """Handle a tick: watch for a disconnect, send a heartbeat, give up a stuck reader."""
        if self._watcher is None:
            self._watch()
        idle = now - self._last
        if self._sending and idle > self._streams.stuck_ticks:
            self.stop("stuck")
        if self._sending or (self._beat is not None and not self._beat.done()):
            return
        if not self._begun and idle > 1:
            self._beat = self._streams.tasks.start(self._keep_alive(), name="heartbeat")
        elif idle >= self._streams.beat_ticks:
            self._last = now
            sent = self._send({"type": "http.response.body", "body": self.heartbeat, "more_body": True})
            if asyncio.iscoroutine(sent) or hasattr(sent, "add_done_callback"):  # it could not be sent at once
                self._beat = self._streams.tasks.start(self._sent(sent), name="heartbeat")

    async def _send_last_frame(self, farewell: Coroutine[Any, Any, None]) -> None:
        """Send the last frame to a reader that still reads."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await farewell

    async def _serve(self) -> None:
        raise NotImplementedError

    async def _drained(self) -> None:
        raise NotImplementedError

    async def _revoked(self) -> None:
        raise NotImplementedError

    async def _begin(self, *more: tuple[bytes, bytes], status: int = 200) -> None:
        self._begun = True
        self._sending = True
        headers = [(b"content-type", self.kind), (b"cache-control", self.caching), *self._headers, *more]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self._sending = False
        if self._detacher is not None:
            self._send = self._detacher.plain_send
            self._detacher = None
            self._headers = []
            release_scope(self._scope)

    async def _settle(self) -> None:
        """Wait for a heartbeat in progress."""
        if self._beat is not None:
            await self._beat
            self._beat = None

    async def _put(self, chunk: bytes, more: bool = True) -> None:
        if len(chunk) <= SLICE:
            await self._put_slice(chunk, more)
            return
        for at in range(0, len(chunk), SLICE):
            await self._put_slice(chunk[at : at + SLICE], more or at + SLICE < len(chunk))
            await asyncio.sleep(0)

    async def _put_all(self, pieces: Sequence[bytes]) -> None:
        """Send the rest of the body: small pieces joined, large ones without a copy."""
        small: list[bytes] = []
        size = 0
        for piece in pieces:
            if size + len(piece) > SLICE and small:
                await self._put(b"".join(small))
                small, size = [], 0
            if len(piece) > SLICE:
                await self._put(piece)
            else:
                small.append(piece)
                size += len(piece)
        await self._put(b"".join(small), more=False)

    async def _put_slice(self, chunk: bytes, more: bool) -> None:
        self._last = self._streams.now
        self._sending = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        self._sending = False

    async def _keep_alive(self) -> None:
        if not self._begun:
            await self._begin()
        await self._put(self.heartbeat)

    async def _sent(self, sending: Awaitable[None]) -> None:
        self._sending = True
        await sending
        self._sending = False

    def _watch(self) -> None:  # by the server's own future if it returns one, which needs no task
        received: Any = self._receive()
        if hasattr(received, "add_done_callback"):
            self._watcher = received
            received.add_done_callback(self._on_message)
        else:
            self._watcher = self._streams.tasks.start(self._listen(received), name="watch")
            self._watcher.add_done_callback(lambda _: received.close())  # it may be cancelled before it starts

    def _on_message(self, received: Any) -> None:
        if self._closed or received.cancelled():
            return
        if received.exception() is not None or received.result()["type"] == "http.disconnect":
            self.stop("gone")
        else:
            self._watch()

    async def _listen(self, received: Awaitable[Any]) -> None:
        while True:
            with contextlib.suppress(HTTPException, BadRequest, Invalid):  # of a body that no handler reads
                if (await received)["type"] == "http.disconnect":
                    break
            received = self._receive()
        self.stop("gone")

    async def _leave(self) -> None:
        self._closed = True
        for waiting in (self._watcher, self._beat):
            if waiting is not None and not waiting.done():
                waiting.cancel()
                if isinstance(waiting, asyncio.Task):
                    await asyncio.wait([waiting])


class EventStream(OpenResponse):
    """Server-sent events from ``chunks``, an iterator of bytes: one or more whole frames per chunk.

    ``headers`` are the run's ``Location`` and ``Content-Location``. ``on_disconnect`` is called once when the client
    disconnects or stops reading; ``chunks`` is always closed, before that. A failing source cuts the connection, so
    that the client reconnects with its ``Last-Event-ID``.
    """

    __slots__ = ("_chunks",)
    kind = b"text/event-stream; charset=utf-8"
    caching = b"no-store, no-transform"
    heartbeat = b": heartbeat\r\n\r\n"
    come_back = b"retry: 1000\r\n\r\n"

    def __init__(
        self,
        streams: OpenStreams,
        chunks: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str] | None = None,
        on_disconnect: OnDisconnect | None = None,
        holder: Hashable = None,
    ) -> None:
        super().__init__(streams, headers, on_disconnect, holder)
        self._chunks = chunks

    async def _begin(self, *more: tuple[bytes, bytes], status: int = 200) -> None:
        await super()._begin((b"x-accel-buffering", b"no"), *more, status=status)

    async def _serve(self) -> None:
        count = 0
        async for chunk in self._chunks:
            if not chunk:
                continue
            await self._settle()
            if not self._begun:
                await self._begin()
            await self._put(chunk)
            del chunk  # free it: it may be the last one for hours
            count += 1
            if count % CHUNKS_PER_YIELD == 0:
                await asyncio.sleep(0)
        await self._settle()
        if not self._begun:
            await self._begin()
        await self._put(b"", more=False)

    async def _leave(self) -> None:
        await super()._leave()
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    async def _drained(self) -> None:
        await self._finish(self.come_back)

    async def _revoked(self) -> None:
        if not self._begun:
            await self.refuse(Unauthenticated(REVOKED))
            return
        await self._finish(b"event: error\r\ndata: %b\r\n\r\n" % encode(_NO_ACCESS))

    async def _finish(self, chunk: bytes) -> None:
        if not self._begun:
            await self._begin()
        await self._put(chunk)
        await self._put(b"", more=False)


class JsonWait(OpenResponse):
    """A long poll: the JSON of ``result``, preceded by line breaks while it is awaited.

    Within the first ticks the response is an ordinary one, and an error of ``result`` gets its own status; later the
    headers are sent, so a failure cuts the connection and the client joins again by ``Location``. ``result`` is
    cancelled when the client disconnects: pass a coroutine, not a task that others await.
    """

    __slots__ = ("_result",)
    kind = b"application/json"
    heartbeat = b"\n"

    def __init__(
        self,
        streams: OpenStreams,
        result: Awaitable[bytes | Pieces],
        *,
        headers: Mapping[str, str] | None = None,
        on_disconnect: OnDisconnect | None = None,
        holder: Hashable = None,
    ) -> None:
        super().__init__(streams, headers, on_disconnect, holder)
        self._result = result

    async def _serve(self) -> None:
        body = await self._result
        pieces = (body,) if isinstance(body, bytes) else body.pieces
        try:
            await self._settle()
            if not self._begun:
                await self._begin((b"content-length", str(sum(map(len, pieces))).encode()))
            await self._put_all(pieces)
        finally:
            if not isinstance(body, bytes):
                body.release()

    async def _drained(self) -> None:
        if not self._begun:  # the run is accepted: the client needs its Location
            await self._keep_alive()

    async def _revoked(self) -> None:
        if not self._begun:
            await self.refuse(Unauthenticated(REVOKED))
            return
        await self._put(encode({"__error__": _NO_ACCESS}), more=False)


class LateAnswer(NamedTuple):
    """A JSON response whose status is known only once its work is done."""

    status: int
    body: bytes


class JsonAnswer(OpenResponse):
    """A response that waits for ``result`` without a sign of life, for protocols whose errors need their status.

    ``result`` is cancelled when the client disconnects: pass a coroutine, not a task that others await.
    """

    __slots__ = ("_on_drain", "_result")
    kind = b"application/json"

    def __init__(
        self,
        streams: OpenStreams,
        result: Awaitable[LateAnswer],
        *,
        headers: Mapping[str, str] | None = None,
        on_disconnect: OnDisconnect | None = None,
        on_drain: OnDisconnect | None = None,
        holder: Hashable = None,
    ) -> None:
        """``on_drain``: called before a draining process refuses the request, which its client then repeats."""
        super().__init__(streams, headers, on_disconnect, holder)
        self._result = result
        self._on_drain = on_drain

    async def _serve(self) -> None:
        await self._send_whole(await self._result)

    async def _send_whole(self, answer: LateAnswer) -> None:
        reserved = await self._streams.large.reserve(self.holder, len(answer.body))
        try:
            await self._begin((b"content-length", str(len(answer.body)).encode()), status=answer.status)
            await self._put(answer.body, more=False)
        finally:
            self._streams.large.release(self.holder, reserved)

    async def _keep_alive(self) -> None:
        """Send nothing: the status is not known yet."""

    async def _drained(self) -> None:
        if not self._begun:
            if self._on_drain is not None:
                await self._on_drain()
            await self.refuse(Unavailable("The server is stopping; try again.", retry_after=1))

    async def _revoked(self) -> None:
        if not self._begun:
            await self.refuse(Unauthenticated(REVOKED))


class WholeAnswer(OpenResponse):
    """A complete JSON response, from a handler that otherwise returns a response that stays open."""

    __slots__ = ("_answer", "_kind", "_named")

    def __init__(
        self, answer: LateAnswer, *, media_type: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        """Need nothing else: it never stays open."""
        self._answer = answer
        self._kind = media_type.encode()
        self._named = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond at once."""
        status, body = self._answer
        length = str(len(body)).encode()
        headers = [(b"content-type", self._kind), (b"content-length", length), *self._named]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


class NoContent(OpenResponse):
    """204, from a handler that otherwise returns a response that stays open."""

    __slots__ = ()

    def __init__(self) -> None:
        """Need nothing: it never stays open."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond at once."""
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
