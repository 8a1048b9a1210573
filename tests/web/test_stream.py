"""Event streams: delivery, heartbeats, disconnects and shutdown."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import get

from app.base.errors import Limited, Unavailable
from app.infra.http.event_streams import EVENT_STREAM, EventStream, frame
from app.infra.telemetry.meters import Meters
from tests.web.serving import Connection, Flag, application, at_rest, fast_streams, scope

ONE = frame("values", b"{}", "1-1")
TWO = frame("values", b"[]", "1-2")


class Source:
    """Chunks from the test; ``closed`` is set when the stream is closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self.queue.get()) is not None:
                yield chunk
        finally:
            self.closed.set()


async def test_a_stream_sends_its_chunks_as_they_are() -> None:
    meters = Meters()
    streams = fast_streams(meters)
    source, connection, gone = Source(), Connection(), Flag()
    serving = connection.serve(EventStream(streams, source.chunks(), headers={"Location": "/x"}, on_disconnect=gone))
    source.queue.put_nowait(ONE)
    await connection.until(lambda: ONE in connection.body)
    assert meters.streams_open.series == {(): 1}
    source.queue.put_nowait(b"")
    source.queue.put_nowait(TWO)
    source.queue.put_nowait(None)
    await serving
    assert connection.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "location": "/x",
        "x-accel-buffering": "no",
    }
    assert connection.body.replace(EventStream.heartbeat, b"") == ONE + TWO
    assert connection.ended
    assert (gone.calls, meters.streams_open.series) == (0, {(): 0})
    assert source.closed.is_set()
    assert at_rest(streams)


async def test_a_quiet_stream_is_kept_alive_from_the_start() -> None:
    streams = fast_streams()
    source, connection = Source(), Connection()
    serving = connection.serve(EventStream(streams, source.chunks()))
    await connection.until(lambda: connection.body.count(EventStream.heartbeat) >= 3)
    source.queue.put_nowait(ONE)
    source.queue.put_nowait(None)
    await serving
    assert connection.body.replace(EventStream.heartbeat, b"") == ONE


async def test_a_busy_stream_has_no_heartbeats() -> None:
    streams = fast_streams(tick=0.005, heartbeat=0.5)
    source, connection = Source(), Connection()
    serving = connection.serve(EventStream(streams, source.chunks()))
    for _ in range(10):
        source.queue.put_nowait(ONE)
        await asyncio.sleep(0.01)
    source.queue.put_nowait(None)
    await serving
    assert connection.body == ONE * 10


async def test_a_disconnect_ends_the_stream_and_is_reported_once() -> None:
    streams = fast_streams()
    source, connection, gone = Source(), Connection(), Flag()
    serving = connection.serve(EventStream(streams, source.chunks(), on_disconnect=gone))
    source.queue.put_nowait(ONE)
    await connection.until(lambda: connection.body)
    connection.leave()
    await asyncio.wait_for(serving, 5)
    assert (gone.calls, source.closed.is_set(), connection.ended) == (1, True, False)
    assert at_rest(streams)


async def test_a_source_that_never_waits_does_not_freeze_the_others_and_ends_with_its_client() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield ONE

    streams = fast_streams()
    connection, gone = Connection(), Flag()
    serving = connection.serve(EventStream(streams, endless(), on_disconnect=gone))
    await connection.until(lambda: connection.body)
    connection.leave()
    await asyncio.wait_for(serving, 5)
    assert gone.calls == 1


async def test_a_reader_that_stops_reading_is_dropped() -> None:
    streams = fast_streams()
    source, connection, gone = Source(), Connection(), Flag()
    serving = connection.serve(EventStream(streams, source.chunks(), on_disconnect=gone))
    source.queue.put_nowait(ONE)
    await connection.until(lambda: connection.body)
    connection.reads.clear()
    source.queue.put_nowait(TWO)
    await asyncio.wait_for(serving, 5)
    assert (gone.calls, source.closed.is_set()) == (1, True)
    assert at_rest(streams)


async def test_a_reader_that_stops_reading_a_quiet_stream_is_given_up_too() -> None:
    streams = fast_streams()
    source, connection, gone = Source(), Connection(), Flag()
    connection.reads.clear()
    await asyncio.wait_for(connection.serve(EventStream(streams, source.chunks(), on_disconnect=gone)), 5)
    assert (gone.calls, connection.sent) == (1, [])
    assert at_rest(streams)


async def test_a_failing_source_cuts_the_stream() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield ONE
        raise ValueError("inside")

    streams = fast_streams()
    connection = Connection()
    with pytest.raises(ValueError, match="inside"):
        await connection.serve(EventStream(streams, broken()))
    assert (connection.body, connection.ended) == (ONE, False)
    assert at_rest(streams)


async def test_a_cancelled_server_task_is_not_mistaken_for_a_client_that_left() -> None:
    streams = fast_streams()
    source, connection, gone = Source(), Connection(), Flag()
    serving = connection.serve(EventStream(streams, source.chunks(), on_disconnect=gone))
    await connection.until(lambda: connection.body)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert (gone.calls, source.closed.is_set()) == (0, True)
    assert at_rest(streams)


async def test_draining_asks_readers_to_reconnect_and_ends_their_streams() -> None:
    streams = fast_streams()
    source, fresh, gone = Source(), Source(), Flag()
    connection, unheard = Connection(), Connection()
    serving = connection.serve(EventStream(streams, source.chunks(), on_disconnect=gone))
    source.queue.put_nowait(ONE)
    await connection.until(lambda: connection.body)
    second = unheard.serve(EventStream(streams, fresh.chunks()))
    await asyncio.sleep(0)
    streams.drain()
    await asyncio.wait_for(asyncio.gather(serving, second), 5)
    assert connection.body.replace(EventStream.heartbeat, b"") == ONE + b"retry: 1000\r\n\r\n"
    assert unheard.body == b"retry: 1000\r\n\r\n"
    assert (connection.ended, unheard.ended, gone.calls, source.closed.is_set()) == (True, True, 0, True)
    with pytest.raises(Unavailable):
        streams.admit()
    assert at_rest(streams)


async def test_a_stream_that_opens_while_draining_ends_at_once() -> None:
    streams = fast_streams()
    streams.drain()
    source, connection = Source(), Connection()
    await asyncio.wait_for(connection.serve(EventStream(streams, source.chunks())), 5)
    assert connection.body == b"retry: 1000\r\n\r\n"


async def test_no_more_streams_open_than_allowed() -> None:
    streams = fast_streams(max_streams=1)
    streams.admit()
    source, connection = Source(), Connection()
    serving = connection.serve(EventStream(streams, source.chunks()))
    await connection.until(lambda: connection.body)
    with pytest.raises(Unavailable) as refused:
        streams.admit()
    assert refused.value.retry_after == 1
    source.queue.put_nowait(None)
    await serving
    streams.admit()


async def test_no_key_has_more_streams_open_than_its_share() -> None:
    streams = fast_streams(max_per_holder=1)
    source, connection = Source(), Connection()
    serving = connection.serve(EventStream(streams, source.chunks(), holder="mine"))
    await connection.until(lambda: connection.body)
    with pytest.raises(Limited, match="close one"):
        streams.admit("mine")
    streams.admit("yours")
    source.queue.put_nowait(None)
    await serving
    streams.admit("mine")


async def test_a_finished_stream_leaves_nothing_in_memory() -> None:
    streams = fast_streams()
    connection = Connection()

    async def short() -> AsyncIterator[bytes]:
        yield ONE

    source = short()
    left = weakref.ref(source)
    await connection.serve(EventStream(streams, source))
    del source
    gc.collect()
    assert left() is None


@pytest.mark.parametrize(
    "data, lines",
    [
        (b'{"a":1}', b'data: {"a":1}\r\n'),
        (b'{\n"a": 1\r\n}', b'data: {\r\ndata: "a": 1\r\ndata: }\r\n'),
        (b"1\r\nevent: forged\r\n\r\n", b"data: 1\r\ndata: event: forged\r\ndata: \r\n"),
    ],
)
def test_a_frame_is_one_event_whatever_its_data(data: bytes, lines: bytes) -> None:
    assert frame("values", data, "1-2") == b"event: values\r\n" + lines + b"id: 1-2\r\n\r\n"


async def test_a_handler_returns_a_stream_and_the_document_says_so() -> None:
    streams = fast_streams()

    async def short() -> AsyncIterator[bytes]:
        yield ONE

    @get("/stream", responses=EVENT_STREAM)
    async def handler() -> EventStream:
        return EventStream(streams, short())

    app = application(handler)
    connection = Connection()
    await app(scope(path="/stream"), connection.receive, connection.send)  # type: ignore[arg-type]
    assert connection.body == ONE
    document: dict[str, Any] = app.openapi_schema.to_schema()
    assert list(document["paths"]["/stream"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]


async def test_a_stream_that_ends_as_its_watch_begins_leaves_nothing_behind() -> None:
    """A coroutine that is never awaited would be reported when it is collected."""
    streams, source, connection = fast_streams(tick=60), Source(), Connection()
    stream = EventStream(streams, source.chunks())
    serving = connection.serve(stream)
    source.queue.put_nowait(ONE)
    await connection.until(lambda: ONE in connection.body)
    source.queue.put_nowait(None)
    stream.on_tick(streams.now)
    await serving
    assert at_rest(streams)
    del stream, serving
    gc.collect()
