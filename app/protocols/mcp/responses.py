"""Responses of the protocol: JSON at once, or server-sent events of one call."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from app.base.errors import AgentServiceError, NotFound
from app.base.tasks import Tasks
from app.infra.http.event_streams import EventStream, OnDisconnect, OpenResponse
from app.infra.http.open_streams import OpenStreams
from app.protocols.mcp.errors import INTERNAL, RpcError
from app.protocols.mcp.structs import META
from app.protocols.mcp.surface import Ask, Asked, Caller, Done, Items, LogMessage, Progress

encode = msgspec.json.Encoder().encode

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Levels of log messages, by severity (RFC 5424)."""

STOPPING = "The server is stopping. The run goes on: read its thread, or send the request again."


class RpcResponse(OpenResponse):
    """A JSON body, or none (202 for a notification), sent at once."""

    __slots__ = ("body", "more", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Needs no stream, because it never stays open."""
        self.status = status
        self.body = body
        self.more = headers or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        headers = [(name.lower().encode(), value.encode()) for name, value in self.more.items()]
        headers += [(b"content-length", str(len(self.body)).encode()), (b"cache-control", b"no-store")]
        if self.body:
            headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class RpcStream(EventStream):
    """The server-sent events of one request. A server that stops ends it with an error for the request."""

    __slots__ = ("come_back",)

    def __init__(
        self,
        streams: OpenStreams,
        chunks: AsyncIterator[bytes],
        request_id: str | int,
        *,
        on_disconnect: OnDisconnect | None,
        holder: Hashable,
    ) -> None:
        super().__init__(streams, chunks, on_disconnect=on_disconnect, holder=holder)
        self.come_back = event(failed(request_id, {"code": INTERNAL, "message": STOPPING}))


def completed(request_id: str | int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response with ``result``."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failed(request_id: str | int | None, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response with ``error``."""
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def notification(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def event(message: Mapping[str, Any]) -> bytes:
    """Return a message as a server-sent event."""
    return b"event: message\r\ndata: " + encode(message) + b"\r\n\r\n"


class CallStream:
    """Turns the items of a call into the events of its response.

    ``seal`` makes the id by which an older client answers an ask; ``finish`` turns the last item into the result.
    """

    def __init__(
        self,
        caller: Caller,
        request_id: str | int,
        seal: Callable[[Any], str],
        finish: Callable[[Asked | Done], dict[str, Any]],
    ) -> None:
        self._caller = caller
        self._id = request_id
        self._seal = seal
        self._finish = finish

    async def events(self, items: Items) -> AsyncGenerator[bytes, None]:
        """Yield events until the call ends, or waits for a client that repeats it with answers."""
        try:
            async with contextlib.aclosing(items):
                async for message in self._messages(items):
                    yield event(message)
        except RpcError as error:
            yield event(failed(self._id, error.body()))
        except AgentServiceError as error:
            yield event(failed(self._id, {"code": INTERNAL, "message": str(error)}))

    async def _messages(self, items: Items) -> AsyncGenerator[dict[str, Any], None]:
        envelope = self._caller.envelope
        async for item in items:
            match item:
                case Progress():
                    if envelope.progress_token is not None:
                        yield notification("notifications/progress", self._progress(item))
                case LogMessage():
                    if self._wants(item):
                        params = {"level": item.level, "logger": "agent", "data": item.data}
                        yield notification("notifications/message", params)
                case Asked() if not envelope.stateless:
                    for key, ask in item.asks.items():
                        yield self._request(key, ask, item.state)
                case Asked() | Done():
                    yield completed(self._id, self._finish(item))
                    break

    def _progress(self, item: Progress) -> dict[str, Any]:
        params: dict[str, Any] = {"progressToken": self._caller.envelope.progress_token, "progress": item.progress}
        if item.total is not None:
            params["total"] = item.total
        if item.message is not None:
            params["message"] = item.message
        return params

    def _wants(self, item: LogMessage) -> bool:
        if not self._caller.envelope.stateless:
            return True
        level = self._caller.envelope.log_level
        return level in LEVELS and LEVELS.index(item.level) >= LEVELS.index(level)

    def _request(self, key: str, ask: Ask, state: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": self._seal([key, state]), "method": ask.method, "params": ask.params}


async def listening(
    subscription: str | int, wanted: Mapping[str, Any], tasks: Sequence[AsyncGenerator[dict[str, Any], None]]
) -> AsyncGenerator[bytes, None]:
    """Yield an acknowledgement with what is ``wanted`` of it, then all changes of ``tasks``; stay open after them."""
    meta = {"_meta": {f"{META}subscriptionId": subscription}}
    yield event(notification("notifications/subscriptions/acknowledged", {"notifications": wanted, **meta}))
    async with contextlib.aclosing(merged(tasks)) as changes:
        async for task in changes:
            yield event(notification("notifications/tasks", {**task, **meta}))
    await asyncio.Event().wait()


async def merged(tasks: Sequence[AsyncGenerator[dict[str, Any], None]]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield what all of ``tasks`` yield, until they have ended; one that is unknown, or is deleted, ends silently."""
    found: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=1)

    async def pump(task: AsyncGenerator[dict[str, Any], None]) -> None:
        with contextlib.suppress(NotFound):
            async with contextlib.aclosing(task):
                async for one in task:
                    await found.put(one)
        await found.put(None)

    owner = Tasks("mcp-listen")
    try:
        for task in tasks:
            owner.start(pump(task), name="task")
        left = len(tasks)
        while left:
            one = await found.get()
            if one is None:
                left -= 1
            else:
                yield one
    finally:
        await owner.aclose()
