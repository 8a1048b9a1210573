"""WebSocket mode of Responses: https://www.openresponses.org/specification

Each ``response.create`` frame is a request for a streamed response, whose events are frames; one at a time. What a
request without ``store`` leaves behind is kept with the connection alone: the next request may continue the last such
response by its id, until one fails or the connection ends.
"""

import asyncio
import re
from typing import Any, NamedTuple

import msgspec
from litestar.types import ASGIApp, Receive, Send

from app.base.tasks import Tasks
from app.protocols.openai.errors import error_body
from app.protocols.websockets import CLOSED, DATA, MAX_FRAME_BYTES, REFUSED, RESTARTS, TOO_BIG, InnerRequests

PATH = re.compile(r"(?P<base>.*/v1/responses)/?")

MAX_WAITING = 16
"""Frames that wait for their turn; a client that sends more is not read until there is room."""

MAX_SECONDS = 3600.0
"""The longest connection: https://www.openresponses.org/specification"""

IDLE_SECONDS = 300.0
"""A connection is closed after so long without a frame."""

MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of a conversation that is kept with the connection; one that is longer is not continued."""

_CREATE = "response.create"
_REFUSED_MEMBERS = ("stream", "stream_options", "background")
_ENDED = frozenset({"response.completed", "response.incomplete", "response.failed"})

_encode = msgspec.json.Encoder().encode

Frame = dict[str, Any]


class Kept(NamedTuple):
    """The last response that is not stored: its id, and all items of its conversation."""

    response_id: str
    items: list[Any]


async def serve(app: ASGIApp, scope: Any, receive: Receive, send: Send, match: "re.Match[str]") -> None:
    """Serve one connection."""
    await _Connection(app, scope, receive, send, match["base"]).serve()


class _Connection:
    def __init__(self, app: ASGIApp, scope: Any, receive: Receive, send: Send, base: str) -> None:
        self._requests = InnerRequests(app, scope)
        self._receive = receive
        self._send = send
        self._base = base
        self._tasks = Tasks("websocket")
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._close: tuple[int, str] = CLOSED, ""
        self._kept: Kept | None = None

    async def serve(self) -> None:
        message: Any = await self._receive()
        if message["type"] != "websocket.connect":
            return
        status, _ = await self._requests.request("GET", f"{self._base}/resp_", b"")
        if status != 404:  # there is no such response: the client may ask
            await self._send({"type": "websocket.close", "code": REFUSED + status, "reason": "refused"})
            return
        await self._send({"type": "websocket.accept", "subprotocol": self._requests.subprotocol, "headers": []})
        reader = self._tasks.start(self._read(), name="read")
        try:
            async with asyncio.timeout(MAX_SECONDS):
                while (frame := await self._frames.get()) is not None:
                    await self._answer(frame)
        except TimeoutError:
            self._close = CLOSED, "The connection is too old: open another one."
        finally:
            self._requests.gone.set()
            await self._tasks.aclose()
        if not reader.cancelled() and reader.done() and reader.result():
            return  # the client has disconnected
        code, reason = self._close
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _read(self) -> bool:
        """Take frames until the end; return whether the client has ended it."""
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS if self._frames.empty() else None):
                    message: Any = await self._receive()
                if message["type"] != "websocket.receive":
                    self._requests.gone.set()
                    return True
                frame = message.get("bytes") or (message.get("text") or "").encode()
                if len(frame) > MAX_FRAME_BYTES:
                    self._close = TOO_BIG, "The frame is too large."
                    return False
                await self._frames.put(frame)
        except TimeoutError:
            self._close = CLOSED, "idle"
            return False
        finally:
            await self._frames.put(None)

    async def _answer(self, frame: bytes) -> None:
        """Answer one frame by the events of a response, or by an error."""
        try:
            asked = msgspec.json.decode(frame, type=Frame)
        except (msgspec.DecodeError, RecursionError):
            await self._refuse(400, 'The frame is not a JSON object: send {"type": "response.create", …}.')
            return
        if asked.pop("type", None) != _CREATE:
            await self._refuse(400, f"The type of a frame must be {_CREATE}.", "type")
            return
        if wrong := next((name for name in _REFUSED_MEMBERS if asked.get(name) is not None), None):
            await self._refuse(400, f"{wrong} has no place in WebSocket mode: leave it out.", wrong)
            return
        kept, self._kept = self._kept, None  # a failure forgets it
        continues = kept if kept is not None and asked.get("previous_response_id") == kept.response_id else None
        given = asked.get("input")
        new = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        items = new if isinstance(new, list) else []
        if continues is not None:
            items = [*continues.items, *items]
            asked |= {"input": items, "previous_response_id": None, "store": False}
        response = await self._follow(_encode({**asked, "stream": True}), continues)
        if asked.get("store") is False and response is not None and response.get("status") != "failed":
            items = [*items, *(response.get("output") or ())]
            if len(_encode(items)) <= MAX_KEPT_BYTES:
                self._kept = Kept(str(response["id"]), items)

    async def _follow(self, body: bytes, continues: Kept | None) -> Frame | None:
        """Send the events of a response; return the response once it has ended, None if it did not."""
        status, head, rest = 500, b"", b""
        ended: Frame | None = None

        async def on_start(got: int) -> None:
            nonlocal status
            status = got

        async def on_body(chunk: bytes) -> None:
            nonlocal head, rest, ended
            if status != 200:
                head += chunk
                return
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                data = DATA.search(event)
                if data is None or data[1] == b"[DONE]":
                    continue
                found = data[1]
                if b'"response":{' in found[:64]:  # the few events that have the response itself
                    found, ended = _seen(found, continues, ended)
                await self._put(found)

        complete = await self._requests.call("POST", self._base, body, on_start, on_body)
        if status != 200:
            await self._put(_error_of(status, head))
        elif not complete:
            self._close = RESTARTS, ""
        return ended

    async def _refuse(self, status: int, message: str, param: str | None = None) -> None:
        await self._put(_error_of(status, _encode(error_body(status, message, param=param))))

    async def _put(self, data: bytes) -> None:
        await self._send({"type": "websocket.send", "text": data.decode(), "bytes": None})


def _seen(data: bytes, continues: Kept | None, ended: Frame | None) -> tuple[bytes, Frame | None]:
    """Return an event that may have the response in it, as the client sees it, and the response once it has ended."""
    event = msgspec.json.decode(data)
    response = event.get("response")
    if not isinstance(response, dict):
        return data, ended
    if continues is not None:
        response["previous_response_id"] = continues.response_id
        data = _encode(event)
    return data, response if event.get("type") in _ENDED else ended


def _error_of(status: int, body: bytes) -> bytes:
    """Return the event of a refusal; it always has a code."""
    try:
        error = msgspec.json.decode(body, type=Frame)["error"]
        error = {**error, "code": error.get("code") or error["type"]}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        error = {"type": "server_error", "code": "server_error", "message": f"The request failed with status {status}."}
    return _encode({"type": "error", "status": status, "error": error})
