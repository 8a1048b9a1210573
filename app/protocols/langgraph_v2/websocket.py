"""WebSocket connections to a thread: https://github.com/langchain-ai/agent-protocol (RFC 6455).

Each frame is a command, each subscription a stream. A browser, which can send no headers, names its key as a
sub-protocol: ``["agent-protocol", "bearer.KEY"]``.
"""

import asyncio
import re
from typing import Any

import msgspec

from app.base.errors import AgentServiceError
from app.base.ids import new_id
from app.base.offload import offload
from app.protocols.langgraph_v2.structs import Command, Failure, Success
from app.protocols.websockets import CLOSED, DATA, REFUSED, RESTARTS, Connection, decoded

PATH = re.compile(r"/threads/[^/]+/stream(?:/events)?")
MAX_SUBSCRIPTIONS = 16

IDLE_SECONDS = 60.0
"""A connection without a subscription is closed after so long without a frame."""

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode


class ThreadConnection(Connection):
    """A connection to a thread. A frame is read once the one before it is answered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._thread = self.path.removesuffix("/events").removesuffix("/stream")
        self._subscriptions: dict[str, asyncio.Task[None]] = {}

    async def ask(self) -> int:
        """Ask for the thread's runs."""
        status, _ = await self.requests.request("GET", f"{self._thread}/runs", b"", b"limit=1")
        return status

    async def converse(self) -> None:
        """Answer commands, and send the events of subscriptions."""
        reader = self.tasks.start(self._read(), name="read")
        await asyncio.wait([reader, self.ended], return_when=asyncio.FIRST_COMPLETED)

    async def _read(self) -> None:
        try:
            while not self.ended.done():
                async with asyncio.timeout(None if self._subscriptions else IDLE_SECONDS):
                    frame = await self.frame()
                if frame is None:
                    return
                await self.put(await self._answer(frame))
        except TimeoutError:
            self.end(CLOSED, "idle")

    async def _answer(self, frame: bytes) -> bytes:
        try:
            command = await decoded(frame, _decode)
        except AgentServiceError as error:
            return encode(Failure(id=None, error="invalid_argument", message=str(error)))
        except (msgspec.MsgspecError, RecursionError):
            message = 'The frame is not a command: send {"id", "method", "params"} as JSON.'
            return encode(Failure(id=None, error="invalid_argument", message=message))
        match command.method:
            case "subscription.subscribe":
                return await self._subscribe(command, len(frame))
            case "subscription.unsubscribe":
                return self._unsubscribe(command)
            case "subscription.reconnect":
                return encode(Success(id=command.id, result={"restored": self._has(command.params)}))
        status, body = await self.requests.request("POST", f"{self._thread}/commands", frame)
        return body if status == 200 else encode(_failure(command.id, status, body))

    async def _subscribe(self, command: Command, size: int) -> bytes:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            message = f"A connection has at most {MAX_SUBSCRIPTIONS} subscriptions: end one."
            return encode(Failure(id=command.id, error="invalid_argument", message=message))
        subscription = str(new_id())
        begun: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        body = await offload(size, encode, command.params)
        stream = self._follow(subscription, body, begun)
        self._subscriptions[subscription] = self.tasks.start(stream, name="subscription")
        status, body = await begun
        if status == 200:
            return encode(Success(id=command.id, result={"subscription_id": subscription}))
        if status in {401, 403, 404}:
            self.end(REFUSED + status)
        return encode(_failure(command.id, status, body))

    def _has(self, params: dict[str, Any]) -> bool:
        """Whether all subscriptions that ``params`` name are open."""
        wanted = params.get("subscriptions")
        if not isinstance(wanted, list) or not 0 < len(wanted) <= MAX_SUBSCRIPTIONS:
            return False
        return all(isinstance(one, str) and one in self._subscriptions for one in wanted)

    def _unsubscribe(self, command: Command) -> bytes:
        wanted = command.params.get("subscription_id")
        task = self._subscriptions.pop(wanted, None) if isinstance(wanted, str) else None
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
                    await self.put(data[1])

        try:
            complete = await self.requests.call("POST", f"{self._thread}/stream/events", body, on_start, on_body)
        finally:
            self._subscriptions.pop(subscription, None)
            if not begun.done():
                begun.set_result((status, head))
        if status == 200:
            self.end(CLOSED if complete else RESTARTS)


def _failure(command_id: int, status: int, body: bytes) -> Failure:
    try:
        detail = str(msgspec.json.decode(body, type=dict[str, Any])["detail"])
    except (msgspec.MsgspecError, KeyError):
        detail = f"The request failed with status {status}."
    code: Any = "permission_denied" if status in {401, 403} else "invalid_argument" if status < 500 else "unknown_error"
    return Failure(id=command_id, error=code, message=detail)
