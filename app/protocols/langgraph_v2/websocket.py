"""WebSocket connections to a thread: https://github.com/langchain-ai/agent-protocol (RFC 6455).

Each frame is a command, each subscription a stream. A browser, which can send no headers, names its key as a
sub-protocol: ``["agent-protocol", "bearer.KEY"]``.

``@langchain/langgraph-sdk`` ends the iterators of all subscriptions of a connection at the first event that ends a run.
So such an event, and a question, waits until the other subscriptions have come to it as well.
"""

import asyncio
import contextlib
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

BURST_SECONDS = 0.1
"""The end of a run and a question wait so long after a subscription for the next one: clients open several at once."""

CATCH_UP_SECONDS = 2.0
"""Timeout of the end of a run, or a question, that waits for subscriptions which have not come to it."""

ENDS = frozenset({"completed", "failed", "interrupted"})

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode


class ControlData(msgspec.Struct):
    """The data of a lifecycle event: what has happened to a graph; a question has none."""

    event: str = ""


class ControlParams(msgspec.Struct):
    """The namespace of an event, and its data."""

    namespace: list[str]
    data: ControlData


class ControlEvent(msgspec.Struct):
    """A lifecycle event or a question, as far as it is recognised by them that a run pauses or ends."""

    seq: int
    method: str
    params: ControlParams


_control_of = msgspec.json.Decoder(ControlEvent).decode


def _pause_of(event: bytes, data: bytes) -> int | None:
    """Return the number of an event by which a run asks or ends; None for any other event."""
    if not event.startswith((b"event: lifecycle", b"event: input.requested")):
        return None
    control = _control_of(data)
    pauses = control.method != "lifecycle" or control.params.data.event in ENDS
    return control.seq if pauses and not control.params.namespace else None


class Pauses:
    """Lets an event by which a run asks or ends pass once the subscriptions that select it have all come to it."""

    def __init__(self) -> None:
        self._reached: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._settled = asyncio.Event()
        self._burst: asyncio.TimerHandle | None = None

    def add(self, subscription: str, params: dict[str, Any]) -> None:
        """Count a new subscription, if it selects questions and the ends of runs."""
        self._settled.clear()
        if self._burst is not None:
            self._burst.cancel()
        self._burst = asyncio.get_running_loop().call_later(BURST_SECONDS, self._settled.set)
        channels, namespaces, since = params.get("channels"), params.get("namespaces"), params.get("since")
        selects = isinstance(channels, list) and "lifecycle" in channels and "input" in channels
        if selects and (not namespaces or [] in namespaces):
            self._reached[subscription] = since if isinstance(since, int) else 0

    async def remove(self, subscription: str) -> None:
        """Count a subscription no longer."""
        self._reached.pop(subscription, None)
        async with self._changed:
            self._changed.notify_all()

    async def reach(self, subscription: str, seq: int) -> None:
        """Wait with event ``seq``, which ``subscription`` has come to, for the other ones."""
        async with self._changed:
            if subscription in self._reached:
                self._reached[subscription] = seq
            self._changed.notify_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._settled.wait()
                async with self._changed:
                    await self._changed.wait_for(lambda: all(at >= seq for at in self._reached.values()))


class ThreadConnection(Connection):
    """A connection to a thread. A frame is read once the one before it is answered."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._thread = self.path.removesuffix("/events").removesuffix("/stream")
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._pauses = Pauses()
        self._is_missing = False

    async def ask(self) -> int:
        """Ask for the thread's runs. The thread need not exist yet: SDKs connect before ``run.start`` creates it."""
        status, _ = await self.requests.request("GET", f"{self._thread}/runs", b"", b"limit=1")
        return 200 if status == 404 and self.requests.admitted is not None else status

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
                answer = await self._answer(frame.data)
                frame.release()
                await self.put(answer)
        except TimeoutError:
            self.end(*((REFUSED + 404, "There is no such thread.") if self._is_missing else (CLOSED, "idle")))

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
        self._pauses.add(subscription, command.params)
        body = await offload(size, encode, command.params)
        stream = self._follow(subscription, body, begun)
        self._subscriptions[subscription] = self.tasks.start(stream, name="subscription")
        status, body = await begun
        self._is_missing = status == 404
        if status == 200:
            return encode(Success(id=command.id, result={"subscription_id": subscription}))
        if status in {401, 403}:
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
                if (data := DATA.search(event)) is None:
                    continue
                if (pause := _pause_of(event, data[1])) is not None:
                    await self._pauses.reach(subscription, pause)
                await self.put(data[1])

        try:
            complete = await self.requests.call("POST", f"{self._thread}/stream/events", body, on_start, on_body)
        finally:
            self._subscriptions.pop(subscription, None)
            await self._pauses.remove(subscription)
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
