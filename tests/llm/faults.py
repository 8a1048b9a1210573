"""Faults of a provider, each implemented on an open request."""

import asyncio
import enum
import gzip
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from aiohttp import web

from tests.llm.wires import ANTHROPIC, OPENAI, call_events, closing, opening, text_event


class Fault(enum.Enum):
    """Every fault."""

    HANG_BEFORE_HEADERS = enum.auto()
    HANG_BEFORE_FIRST_TOKEN = enum.auto()
    HANG_IN_THE_MIDDLE = enum.auto()
    HANG_AFTER_THE_REASON = enum.auto()
    DRIP_COMMENTS = enum.auto()
    DRIP_BYTES = enum.auto()
    DRIP_TOKENS = enum.auto()
    RATE_LIMITED = enum.auto()
    SERVER_ERROR = enum.auto()
    OVERLOADED = enum.auto()
    UNAUTHORIZED = enum.auto()
    BAD_REQUEST = enum.auto()
    REDIRECT = enum.auto()
    CUT_BEFORE_HEADERS = enum.auto()
    CUT = enum.auto()
    CUT_IN_UTF8 = enum.auto()
    CUT_IN_ARGUMENTS = enum.auto()
    ENDS_EARLY = enum.auto()
    BAD_JSON = enum.auto()
    BAD_UTF8 = enum.auto()
    WRONG_SHAPE = enum.auto()
    DEEP_JSON = enum.auto()
    HTML = enum.auto()
    JSON_INSTEAD = enum.auto()
    ERROR_WITH_200 = enum.auto()
    ERROR_IN_STREAM = enum.auto()
    LONG_LINE = enum.auto()
    HUGE_TOTAL = enum.auto()
    GZIP = enum.auto()
    NO_HTTP = enum.auto()
    UNKNOWN_CALL = enum.auto()
    DUPLICATE_CALLS = enum.auto()
    BROKEN_ARGUMENTS = enum.auto()
    NAMELESS_CALL = enum.auto()
    MANY_CALLS = enum.auto()


class Replay(msgspec.Struct, kw_only=True):
    """Raw bytes, sent in chunks of ``piece`` bytes."""

    data: bytes
    piece: int | None = None
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = {}


class Stage:
    """One open request to ``vendor``'s API. ``stop`` is set when the provider shuts down."""

    def __init__(self, vendor: str, request: web.Request, stop: asyncio.Event) -> None:
        self.vendor = vendor
        self.stop = stop
        self._request = request

    async def begin(self, replay: Replay | None = None) -> web.StreamResponse:
        """Send the headers."""
        replay = replay or Replay(data=b"")
        headers = {"Content-Type": replay.content_type, **replay.headers}
        response = web.StreamResponse(status=replay.status, headers=headers)
        await response.prepare(self._request)
        return response

    async def send(self, replay: Replay) -> web.StreamResponse:
        """Send a whole answer."""
        response = await self.begin(replay)
        size = replay.piece or len(replay.data) or 1
        for start in range(0, len(replay.data), size):
            await response.write(replay.data[start : start + size])
            if replay.piece:
                await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def send_part(self, data: bytes) -> web.StreamResponse:
        """Send the headers and ``data``; leave the answer open."""
        response = await self.begin()
        await response.write(data)
        return response

    def cut(self, last: bytes = b"") -> web.Response:
        """Close the connection, after sending raw bytes if given."""
        transport = self._request.transport
        assert transport is not None
        if last:
            transport.write(last)  # type: ignore[attr-defined,unused-ignore]
        transport.close()
        return web.Response()


Play = Callable[[Stage], Awaitable[web.StreamResponse]]
Make = Callable[[str], bytes]


def error(vendor: str, status: int, message: str = "no") -> dict[str, Any]:
    """Return an error response in the vendor's format: the arguments of ``json_response``."""
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    complaint = {"type": kinds.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": complaint} if vendor == ANTHROPIC else {"error": complaint | {"code": None}}
    return {"data": body, "status": status}


async def _hang_before_headers(stage: Stage) -> web.StreamResponse:
    await stage.stop.wait()
    return stage.cut()


def _hang(make: Make) -> Play:
    async def play(stage: Stage) -> web.StreamResponse:
        response = await stage.send_part(make(stage.vendor))
        await stage.stop.wait()
        return response

    return play


def _drip(pieces: Callable[[str], Iterable[bytes]]) -> Play:
    async def play(stage: Stage) -> web.StreamResponse:
        response = await stage.begin()
        for piece in pieces(stage.vendor):
            await response.write(piece)
            await asyncio.sleep(0.005)
        return response

    return play


async def _cut_before_headers(stage: Stage) -> web.StreamResponse:
    return stage.cut()


def _cut(make: Make) -> Play:
    async def play(stage: Stage) -> web.StreamResponse:
        response = await stage.send_part(make(stage.vendor))
        stage.cut()
        return response

    return play


def _replay(make: Make, **rest: Any) -> Play:
    async def play(stage: Stage) -> web.StreamResponse:
        return await stage.send(Replay(data=make(stage.vendor), **rest))

    return play


def _fixed(data: bytes, **rest: Any) -> Play:
    return _replay(lambda _: data, **rest)


def _calls(*calls: tuple[str | None, str | None, str]) -> Play:
    asks = {OPENAI: "tool_calls", ANTHROPIC: "tool_use"}
    return _replay(lambda vendor: opening(vendor) + call_events(vendor, [*calls]) + closing(vendor, asks[vendor]))


async def _long_line(stage: Stage) -> web.StreamResponse:
    response = await stage.send_part(b"data: ")
    for _ in range(160):
        await response.write(b"x" * 65536)
    return response


async def _huge_total(stage: Stage) -> web.StreamResponse:
    response = await stage.send_part(opening(stage.vendor))
    text = text_event(stage.vendor, "x" * 32768)
    while not stage.stop.is_set():
        await response.write(text)
    return response


async def _no_http(stage: Stage) -> web.StreamResponse:
    return stage.cut(b"220 mail.example ESMTP ready\r\n\r\n")


REFUSALS: dict[Fault, tuple[int, str, dict[str, str]]] = {
    Fault.RATE_LIMITED: (429, "Slow down, please.", {"Retry-After": "0.01"}),
    Fault.SERVER_ERROR: (500, "Something broke.", {}),
    Fault.OVERLOADED: (529, "Overloaded.", {}),
    Fault.UNAUTHORIZED: (401, "Incorrect API key provided: sk-fake*****1234.", {}),
    Fault.BAD_REQUEST: (400, "The conversation \x1b[31mis\x00 too long." + " word" * 200, {}),
    Fault.REDIRECT: (302, "Elsewhere.", {"Location": "http://127.0.0.1:9/v1"}),
}
"""Faults that are an HTTP status: the status, the message and the headers."""

PLAYS: dict[Fault, Play] = {
    Fault.HANG_BEFORE_HEADERS: _hang_before_headers,
    Fault.HANG_BEFORE_FIRST_TOKEN: _hang(lambda _: b": thinking\n\n"),
    Fault.HANG_IN_THE_MIDDLE: _hang(lambda vendor: opening(vendor) + text_event(vendor, "Hello")),
    Fault.HANG_AFTER_THE_REASON: _hang(
        lambda vendor: opening(vendor) + text_event(vendor, "Hello") + closing(vendor).partition(b"\n\n")[0] + b"\n\n"
    ),
    Fault.DRIP_COMMENTS: _drip(lambda _: itertools.repeat(b": still here\n\n")),
    Fault.DRIP_BYTES: _drip(lambda vendor: itertools.chain([opening(vendor), b"data: "], itertools.repeat(b"x"))),
    Fault.DRIP_TOKENS: _drip(
        lambda vendor: itertools.chain([opening(vendor)], itertools.repeat(text_event(vendor, "x")))
    ),
    Fault.CUT_BEFORE_HEADERS: _cut_before_headers,
    Fault.CUT: _cut(lambda vendor: opening(vendor) + text_event(vendor, "Hello")[:-9]),
    Fault.CUT_IN_UTF8: _cut(lambda vendor: opening(vendor) + text_event(vendor, "né").partition(b"\xa9")[0]),
    Fault.CUT_IN_ARGUMENTS: _cut(lambda vendor: opening(vendor) + call_events(vendor, [("c", "clock", '{"zo')])),
    Fault.ENDS_EARLY: _replay(lambda vendor: opening(vendor) + text_event(vendor, "Hello")),
    Fault.BAD_JSON: _replay(lambda vendor: opening(vendor) + b'data: {"choices": [}\n\n'),
    Fault.BAD_UTF8: _replay(lambda vendor: opening(vendor) + text_event(vendor, "né").replace(b"\xa9", b"\xff")),
    Fault.WRONG_SHAPE: _replay(lambda vendor: opening(vendor) + b'data: {"choices": 7, "type": 7}\n\n'),
    Fault.DEEP_JSON: _fixed(b'data: {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"),
    Fault.HTML: _fixed(b"<!doctype html><html><h1>502 Bad Gateway</h1></html>", content_type="text/html"),
    Fault.JSON_INSTEAD: _fixed(b'{"choices": [], "content": []}', content_type="application/json"),
    Fault.ERROR_WITH_200: _replay(
        lambda vendor: json.dumps(error(vendor, 529)["data"]).encode(), content_type="application/json"
    ),
    Fault.ERROR_IN_STREAM: _replay(
        lambda vendor: (
            opening(vendor) + b"event: error\ndata: " + json.dumps(error(vendor, 529)["data"]).encode() + b"\n\n"
        )
    ),
    Fault.LONG_LINE: _long_line,
    Fault.HUGE_TOTAL: _huge_total,
    Fault.GZIP: _fixed(gzip.compress(b"x" * 1000), headers={"Content-Encoding": "gzip"}),
    Fault.NO_HTTP: _no_http,
    Fault.UNKNOWN_CALL: _calls(("call_1", "no_such_tool", "{}")),
    Fault.DUPLICATE_CALLS: _calls(("call_1", "clock", "{}"), ("call_1", "clock", "{}")),
    Fault.BROKEN_ARGUMENTS: _calls(("call_1", "clock", '{"zone": ')),
    Fault.NAMELESS_CALL: _calls(("call_1", None, "{}")),
    Fault.MANY_CALLS: _calls(*((f"call_{number}", "clock", "{}") for number in range(1000))),
}
"""All other faults."""
