"""Long polls: ordinary responses to quick results, heartbeats, and failures."""

import asyncio

import pytest

from app.base.errors import NotFound
from app.infra.http.event_streams import JsonWait
from tests.web.serving import Connection, Flag, at_rest, fast_streams


async def result(value: bytes = b'{"a": 1}', after: asyncio.Event | None = None) -> bytes:
    if after is not None:
        await after.wait()
    return value


async def test_a_quick_result_is_an_ordinary_answer() -> None:
    connection = Connection()
    await connection.serve(JsonWait(fast_streams(), result(), headers={"Content-Location": "/r"}))
    assert connection.headers == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "content-location": "/r",
        "content-length": "8",
    }
    assert (connection.body, connection.ended) == (b'{"a": 1}', True)


async def test_a_result_that_is_waited_for_comes_after_line_breaks() -> None:
    connection, ready = Connection(), asyncio.Event()
    serving = connection.serve(JsonWait(fast_streams(), result(after=ready)))
    await connection.until(lambda: connection.body == b"\n\n\n")
    ready.set()
    await serving
    assert "content-length" not in connection.headers
    assert (connection.body.strip(), connection.ended) == (b'{"a": 1}', True)


async def failing(after: asyncio.Event) -> bytes:
    await after.wait()
    raise NotFound("No such run.")


async def test_an_error_of_a_quick_result_has_its_own_status_and_a_late_one_cuts() -> None:
    at_once, later = asyncio.Event(), asyncio.Event()
    at_once.set()
    quick, late = Connection(), Connection()
    with pytest.raises(NotFound):
        await quick.serve(JsonWait(fast_streams(), failing(at_once)))
    assert quick.sent == []
    serving = late.serve(JsonWait(fast_streams(), failing(later)))
    await late.until(lambda: late.body)
    later.set()
    with pytest.raises(NotFound):
        await serving
    assert not late.ended


async def test_a_client_that_stops_waiting_is_reported() -> None:
    streams = fast_streams()
    connection, gone = Connection(), Flag()
    serving = connection.serve(JsonWait(streams, result(after=asyncio.Event()), on_disconnect=gone))
    await connection.until(lambda: connection.body)
    connection.leave()
    await asyncio.wait_for(serving, 5)
    assert gone.calls == 1
    assert at_rest(streams)


async def test_draining_cuts_waiting_clients_so_that_they_join_again() -> None:
    streams = fast_streams()
    begun, fresh = Connection(), Connection()
    waiting = begun.serve(JsonWait(streams, result(after=asyncio.Event())))
    await begun.until(lambda: begun.body)
    unheard = fresh.serve(JsonWait(streams, result(after=asyncio.Event()), headers={"Location": "/join"}))
    await asyncio.sleep(0)
    streams.drain()
    await asyncio.gather(waiting, unheard)
    assert (begun.ended, fresh.ended) == (False, False)
    assert fresh.headers["location"] == "/join"
