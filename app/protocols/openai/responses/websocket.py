"""WebSocket mode of Responses: https://www.openresponses.org/specification

Each ``response.create`` frame is a request for a streamed response, whose events are frames; one at a time. What a
request without ``store`` leaves behind is kept with the connection alone: the next request may continue the last such
response by its id, until one fails or the connection ends.
"""

import asyncio
import re
from typing import Any, NamedTuple

import msgspec

from app.base.errors import AgentServiceError
from app.base.offload import offload, rough_size
from app.protocols import websockets
from app.protocols.openai.errors import error_body
from app.protocols.websockets import CLOSED, DATA, RESTARTS, Connection, ReceivedFrame, decoded

PATH = re.compile(r"/v1/responses/?")

MAX_SECONDS = 3600.0
"""The longest connection: https://www.openresponses.org/specification"""

IDLE_SECONDS = 300.0
"""A connection is closed after so long without a frame."""

MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of a conversation that is kept with the connection; one that is longer is not continued.

The last request and its output count.
"""

_CREATE = "response.create"
_REFUSED_MEMBERS = ("stream", "stream_options", "background")
_ENDED = frozenset({"response.completed", "response.incomplete", "response.failed"})

_encode = msgspec.json.Encoder().encode

Frame = dict[str, Any]

_decode = msgspec.json.Decoder(Frame).decode


class Kept(NamedTuple):
    """The last response that is not stored: its id, and all items of its conversation."""

    response_id: str
    items: list[Any]


class Requested(NamedTuple):
    """A response that is asked for: all items of its conversation if they are kept, and the id that it continues."""

    items: list[Any] | None
    continued: str | None


class _RefusedFrame(Exception):
    """A frame that asks for no response."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ResponsesConnection(Connection):
    """A connection for responses. At most one frame waits for its turn; until then none is read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._base = self.path.removesuffix("/")
        self._waiting: asyncio.Queue[ReceivedFrame | None] = asyncio.Queue()
        self._expiry: asyncio.TimerHandle | None = None
        self._kept: Kept | None = None
        self._kept_bytes = 0

    async def ask(self) -> int:
        """Ask for a response that does not exist: the answer 404 means that the client may ask for others."""
        status, _ = await self.requests.request("GET", f"{self._base}/resp_", b"")
        return 200 if status == 404 else status

    async def converse(self) -> None:
        """Answer frames one after the other; an end waits for the answer that is under way."""
        self.tasks.start(self._read(), name="read")
        self.ended.add_done_callback(lambda _: self._waiting.put_nowait(None))
        try:
            async with asyncio.timeout(MAX_SECONDS):
                while (frame := await self._waiting.get()) is not None and not self.ended.done():
                    self._waiting.task_done()
                    if self._expiry is not None:
                        self._expiry.cancel()
                    await self._answer(frame)
                    frame.release()
        except TimeoutError:
            self.end(CLOSED, "The connection is too old: open another one.")
        finally:
            self.requests.gone.set()
            self._forget()

    async def _read(self) -> None:
        """Take frames until the end."""
        try:
            while True:
                await self._waiting.join()  # the one before has its turn
                async with asyncio.timeout(IDLE_SECONDS):
                    frame = await self.frame()
                if frame is None:
                    return
                self._waiting.put_nowait(frame)
                self._expiry = asyncio.get_running_loop().call_later(websockets.MAX_WAIT_SECONDS, frame.expire)
        except TimeoutError:
            self.end(CLOSED, "idle")
        finally:
            self._waiting.put_nowait(None)

    async def _answer(self, frame: ReceivedFrame) -> None:
        """Answer one frame by the events of a response, or by an error."""
        if frame.expired:
            message = "The frame waited too long for its turn: send a large one once the response before it has ended."
            await self.put(_error_of(503, _encode(error_body(503, message))))
            return
        try:
            request = await self._request(frame)
        except _RefusedFrame as refused:
            await self._refuse(str(refused), refused.param)
            return
        response = await self._follow(frame, request.continued)
        if request.items is None or response is None or response.get("status") == "failed":
            self._forget()
            return
        output = response.get("output") or []
        if self._reserve_kept(len(await offload(rough_size(output), _encode, output))):
            self._kept = Kept(str(response["id"]), [*request.items, *output])
        else:
            self._forget()

    async def _request(self, frame: ReceivedFrame) -> Requested:
        """Make the frame the body of a request for a response. Raises ``_RefusedFrame``.

        What the connection keeps is forgotten, or becomes part of what it keeps next.
        """
        try:
            asked = await decoded(frame.data, _decode)
        except AgentServiceError as error:
            raise _RefusedFrame(str(error)) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise _RefusedFrame('The frame is not a JSON object: send {"type": "response.create", …}.') from error
        if asked.pop("type", None) != _CREATE:
            raise _RefusedFrame(f"The type of a frame must be {_CREATE}.", "type")
        if wrong := next((name for name in _REFUSED_MEMBERS if asked.get(name) is not None), None):
            raise _RefusedFrame(f"{wrong} has no place in WebSocket mode: leave it out.", wrong)
        kept, kept_bytes = self._kept, self._kept_bytes
        self._forget()  # a failure forgets it
        continues = kept if kept is not None and asked.get("previous_response_id") == kept.response_id else None
        given = asked.get("input")
        new = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        items = new if isinstance(new, list) else []
        size = len(frame.data)
        if continues is not None:
            items = [*continues.items, *items]
            asked |= {"input": items, "previous_response_id": None, "store": False}
            size += kept_bytes
        keeps = asked.get("store") is False and self._reserve_kept(size)
        frame.data = await offload(size, _encode, {**asked, "stream": True})
        return Requested(items if keeps else None, None if continues is None else continues.response_id)

    def _reserve_kept(self, size: int) -> bool:
        """Reserve bytes for a conversation that is kept with the connection; return whether there is room."""
        if self._kept_bytes + size > MAX_KEPT_BYTES or not self.budgets.kept.take(self.holder, size):
            return False
        self._kept_bytes += size
        return True

    def _forget(self) -> None:
        """Forget what is kept with the connection."""
        self._kept = None
        self.budgets.kept.release(self.holder, self._kept_bytes)
        self._kept_bytes = 0

    async def _follow(self, frame: ReceivedFrame, continued: str | None) -> Frame | None:
        """Send the events of a response; return the response once it has ended, None if it did not."""
        status, head, rest = 500, b"", b""
        ended: Frame | None = None

        async def on_start(got: int) -> None:
            nonlocal status
            status = got
            frame.release()  # the run has what it needs, and may last for hours

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
                    found, ended = await offload(len(found), _seen, found, continued, ended)
                await self.put(found)

        complete = await self.requests.call("POST", self._base, frame.data, on_start, on_body)
        if status != 200:
            await self.put(_error_of(status, head))
        elif not complete:
            self.end(RESTARTS)
        return ended

    async def _refuse(self, message: str, param: str | None) -> None:
        await self.put(_error_of(400, _encode(error_body(400, message, param=param))))


def _seen(data: bytes, continued: str | None, ended: Frame | None) -> tuple[bytes, Frame | None]:
    """Return an event that may have the response in it, as the client sees it, and the response once it has ended."""
    event = msgspec.json.decode(data)
    response = event.get("response")
    if not isinstance(response, dict):
        return data, ended
    if continued is not None:
        response["previous_response_id"] = continued
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
