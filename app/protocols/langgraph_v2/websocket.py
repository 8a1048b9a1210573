"""WebSocket connections to a thread: https://github.com/langchain-ai/agent-protocol (RFC 6455).

Each frame is a command, each subscription a stream. A browser, which can send no headers, names its key as a
sub-protocol: ``["agent-protocol", "bearer.KEY"]``.
"""

import asyncio
import re
from typing import Any

import msgspec
from litestar.types import ASGIApp, Receive, Send

from app.base.ids import new_id
from app.base.tasks import Tasks
from app.protocols.langgraph_v2.structs import Command, Failure, Success
from app.protocols.websockets import CLOSED, DATA, MAX_FRAME_BYTES, REFUSED, RESTARTS, TOO_BIG, InnerRequests

PATH = re.compile(r"(?P<thread>.*/threads/[^/]+)/stream(?:/events)?")
MAX_SUBSCRIPTIONS = 16

IDLE_SECONDS = 60.0
"""A connection without a subscription is closed after so long without a frame."""

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode

Close = tuple[int, str]


async def serve(app: ASGIApp, scope: Any, receive: Receive, send: Send, match: "re.Match[str]") -> None:
    """Serve one connection."""
    await _Connection(app, scope, receive, send, match["thread"]).serve()


class _Connection:
    def __init__(self, app: ASGIApp, scope: Any, receive: Receive, send: Send, thread: str) -> None:
        self._requests = InnerRequests(app, scope)
        self._receive = receive
        self._send = send
        self._thread = thread
        self._tasks = Tasks("websocket")
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._end: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        message: Any = await self._receive()
        if message["type"] != "websocket.connect":
            return
        status, _ = await self._requests.request("GET", f"{self._thread}/runs", b"", b"limit=1")
        if status != 200:
            await self._send({"type": "websocket.close", "code": REFUSED + status, "reason": "refused"})
            return
        await self._send({"type": "websocket.accept", "subprotocol": self._requests.subprotocol, "headers": []})
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
                self._close(CLOSED, "idle")
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
        status, body = await self._requests.request("POST", f"{self._thread}/commands", frame)
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
                if (data := DATA.search(event)) is not None:
                    await self._put(data[1])

        try:
            complete = await self._requests.call("POST", f"{self._thread}/stream/events", body, on_start, on_body)
        finally:
            self._subscriptions.pop(subscription, None)
            if not begun.done():
                begun.set_result((status, head))
        if status == 200:
            self._close(CLOSED if complete else RESTARTS)

    async def _put(self, data: bytes) -> None:
        async with self._sending:
            await self._send({"type": "websocket.send", "text": data.decode(), "bytes": None})


def _failure(command_id: int, status: int, body: bytes) -> Failure:
    try:
        detail = str(msgspec.json.decode(body, type=dict[str, Any])["detail"])
    except (msgspec.MsgspecError, KeyError):
        detail = f"The request failed with status {status}."
    code: Any = "permission_denied" if status in {401, 403} else "invalid_argument" if status < 500 else "unknown_error"
    return Failure(id=command_id, error=code, message=detail)
