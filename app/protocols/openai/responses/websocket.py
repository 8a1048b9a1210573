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
from app.protocols.openai.errors import error_body
from app.protocols.websockets import CLOSED, DATA, RESTARTS, Connection, decoded

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
    """The last response that is not stored: its id, all items of its conversation, and its bytes."""

    response_id: str
    items: list[Any]
    size: int


class ResponsesConnection(Connection):
    """A connection for responses. At most one frame waits for its turn; until then none is read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._base = self.path.removesuffix("/")
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._kept: Kept | None = None

    async def ask(self) -> int:
        """Ask for a response that does not exist: the answer 404 means that the client may ask for others."""
        status, _ = await self.requests.request("GET", f"{self._base}/resp_", b"")
        return 200 if status == 404 else status

    async def converse(self) -> None:
        """Answer frames one after the other; an end waits for the answer that is under way."""
        self.tasks.start(self._read(), name="read")
        self.ended.add_done_callback(lambda _: self._frames.put_nowait(None))
        try:
            async with asyncio.timeout(MAX_SECONDS):
                while (frame := await self._frames.get()) is not None and not self.ended.done():
                    self._frames.task_done()
                    await self._answer(frame)
        except TimeoutError:
            self.end(CLOSED, "The connection is too old: open another one.")
        finally:
            self.requests.gone.set()

    async def _read(self) -> None:
        """Take frames until the end."""
        try:
            while True:
                await self._frames.join()  # the one before has its turn
                async with asyncio.timeout(IDLE_SECONDS):
                    frame = await self.frame()
                if frame is None:
                    return
                self._frames.put_nowait(frame)
        except TimeoutError:
            self.end(CLOSED, "idle")
        finally:
            self._frames.put_nowait(None)

    async def _answer(self, frame: bytes) -> None:
        """Answer one frame by the events of a response, or by an error."""
        try:
            asked = await decoded(frame, _decode)
        except AgentServiceError as error:
            await self._refuse(400, str(error))
            return
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
        size = len(frame) + (0 if continues is None else continues.size)
        body = await offload(size, _encode, {**asked, "stream": True})
        response = await self._follow(body, continues)
        if asked.get("store") is False and response is not None and response.get("status") != "failed":
            output = response.get("output") or []
            kept_bytes = len(body) + len(await offload(rough_size(output), _encode, output))
            if kept_bytes <= MAX_KEPT_BYTES:
                self._kept = Kept(str(response["id"]), [*items, *output], kept_bytes)

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
                    found, ended = await offload(len(found), _seen, found, continues, ended)
                await self.put(found)

        complete = await self.requests.call("POST", self._base, body, on_start, on_body)
        if status != 200:
            await self.put(_error_of(status, head))
        elif not complete:
            self.end(RESTARTS)
        return ended

    async def _refuse(self, status: int, message: str, param: str | None = None) -> None:
        await self.put(_error_of(status, _encode(error_body(status, message, param=param))))


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
