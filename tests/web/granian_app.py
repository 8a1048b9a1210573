"""An application for tests on Granian."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody

from app.infra.http.event_streams import EventStream, JsonWait, frame
from app.infra.http.request_bodies import RequestBodyMiddleware
from app.infra.http.request_context import RequestContextMiddleware
from app.infra.telemetry.meters import Meters
from tests.web.serving import application, fast_streams

meters = Meters()
streams = fast_streams(meters, tick=0.05, heartbeat=0.2, stuck=0.5)
ended: list[str] = []


class Anything(msgspec.Struct):
    a: Any = None


def note(text: str) -> Any:
    async def add() -> None:
        ended.append(text)

    return add


async def quiet(name: str) -> AsyncIterator[bytes]:
    try:
        yield frame("metadata", b"{}", "1-1")
        await asyncio.Event().wait()
    finally:
        ended.append(f"{name} closed")


async def flood() -> AsyncIterator[bytes]:
    while True:
        yield b": flood\r\n" * 10_000


async def broken() -> AsyncIterator[bytes]:
    yield frame("metadata", b"{}", "1-1")
    raise ValueError


@post("/things", status_code=200)
async def things(data: JSONBody[Anything]) -> Anything:
    return data


@post("/deaf", status_code=200)
async def deaf() -> str:
    return "ok"


@get("/quiet/{name:str}")
async def get_quiet(name: FromPath[str]) -> EventStream:
    return EventStream(streams, quiet(name), on_disconnect=note(f"{name} gone"))


@post("/quiet/{name:str}", status_code=200)
async def post_quiet(name: FromPath[str], data: JSONBody[Anything]) -> EventStream:
    return EventStream(streams, quiet(name), on_disconnect=note(f"{name} gone"))


@post("/waiting/{name:str}", status_code=200)
async def post_waiting(name: FromPath[str]) -> JsonWait:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    return JsonWait(streams, never(), headers={"Location": "/join"}, on_disconnect=note(f"{name} gone"))


@get("/flood")
async def get_flood() -> EventStream:
    return EventStream(streams, flood(), on_disconnect=note("flood gone"))


@get("/broken")
async def get_broken() -> EventStream:
    return EventStream(streams, broken())


@get("/drain")
async def drain() -> str:
    streams.drain()
    return "ok"


@get("/ended")
async def get_ended() -> dict[str, Any]:
    return {"ended": ended, "open": len(streams)}


app = RequestContextMiddleware(
    RequestBodyMiddleware(
        application(things, deaf, get_quiet, post_quiet, post_waiting, get_flood, get_broken, drain, get_ended),
        max_bytes=1000,
        seconds=0.5,
    ),
    meters,
)
