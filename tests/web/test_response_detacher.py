"""A stream is served by the outermost layer: it holds neither its request nor what it has sent."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import get
from litestar.params import FromPath

from app.base.errors import NotFound
from app.infra.http.event_streams import EventStream, JsonWait
from app.infra.http.response_detacher import KEPT_KEYS
from app.infra.telemetry.meters import Meters
from tests.web.serving import Connection, at_rest, fast_streams, layers, scope, serving

BIG = b": " + b"x" * 100_000 + b"\r\n\r\n"


async def run(app: Any, given: dict[str, Any], connection: Connection) -> None:
    await app(given, connection.receive, connection.send)


async def test_an_open_stream_holds_neither_its_request_nor_what_it_has_sent() -> None:
    streams, over = fast_streams(), asyncio.Event()
    chunk = bytes(BIG)

    async def chunks() -> AsyncIterator[bytes]:
        yield chunk
        await over.wait()

    @get("/")
    async def open_one() -> EventStream:
        return EventStream(streams, chunks())

    given, connection = scope(headers={"x-long": "x" * 1000}), Connection()
    before = sys.getrefcount(chunk)
    task = asyncio.ensure_future(run(layers(open_one), given, connection))
    await connection.until(lambda: BIG in connection.body)
    connection.sent.clear()
    await asyncio.sleep(0)
    assert set(given) <= set(KEPT_KEYS)
    assert sys.getrefcount(chunk) == before
    over.set()
    await task
    assert at_rest(streams)


@pytest.mark.parametrize("error, status", [(NotFound("No such run."), 404), (ValueError("inside"), 500)])
async def test_an_error_before_the_first_byte_is_a_problem_with_its_own_status(error: Exception, status: int) -> None:
    streams = fast_streams()

    async def result() -> bytes:
        raise error

    async def chunks() -> AsyncIterator[bytes]:
        if status:
            raise error
        yield b""

    @get("/wait")
    async def wait() -> JsonWait:
        return JsonWait(streams, result())

    @get("/stream")
    async def stream() -> EventStream:
        return EventStream(streams, chunks())

    async with serving(wait, stream) as http:
        for path in ("/wait", "/stream"):
            answer = await http.get(path)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["instance"] == path
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert at_rest(streams)


async def test_the_end_of_a_stream_is_recorded_with_its_route_and_status() -> None:
    meters = Meters()

    @get("/a/{name:str}")
    async def stream(name: FromPath[str]) -> EventStream:
        async def chunks() -> AsyncIterator[bytes]:
            yield name.encode()

        return EventStream(fast_streams(), chunks())

    connection = Connection()
    await run(layers(stream, meters=meters), scope(path="/a/b"), connection)
    assert connection.ended
    assert [*meters.http_server_request_duration.series] == [("GET", "/a/{name}", "200")]
