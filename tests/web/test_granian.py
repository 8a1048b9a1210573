"""The HTTP layers on Granian, over real connections."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[2]


class Server:
    """A Granian on a port of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        return reader, writer

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body) of one answer with a length."""
        reader, writer = await self.open(request)
        answer = await read_answer(reader)
        writer.close()
        return answer

    async def until_ended(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while True:
                _, body = await self.ask(b"GET /ended HTTP/1.1\r\nHost: x\r\n\r\n")
                state: dict[str, Any] = json.loads(body)
                if holds(state):
                    return state
                await asyncio.sleep(0.02)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(head.split()[1]), await reader.readexactly(int(lengths[0].split()[1]))


def posting(path: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    port = free_port()
    options = ["--interface", "asgi", "--loop", "uvloop", "--port", str(port), "--log-level", "error"]
    command = [sys.executable, "-m", "granian", *options, "tests.web.granian_app:app"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, start_new_session=True)
    server = Server(port)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await server.ask(b"GET /ended HTTP/1.1\r\nHost: x\r\n\r\n")
                    break
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.05)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the worker too: it outlives a parent that is killed alone
        await process.wait()


async def test_bodies_streams_and_their_ends_on_real_connections(server: Server) -> None:
    """One server for all tests: a start takes a second."""
    await _a_connection_serves_on_after_a_refused_body(server)
    await _a_slow_body_gets_408(server)
    await _a_body_too_large_is_refused_while_it_is_sent(server)
    await _a_body_that_nobody_reads_is_no_trouble(server)
    await _a_stream_is_kept_alive_and_ends_with_its_reader(server)
    await _a_reader_that_stops_reading_is_given_up(server)
    await _a_failing_source_cuts_the_connection(server)
    await _draining_ends_open_streams_in_order(server)


async def _a_connection_serves_on_after_a_refused_body(server: Server) -> None:
    reader, writer = await server.open(posting("/things", b'{"a": "\\u0000"}'))
    assert (await read_answer(reader))[0] == 400
    writer.write(posting("/things", b'{"a": 1}'))
    assert await read_answer(reader) == (200, b'{"a":1}')
    writer.close()


async def _a_slow_body_gets_408(server: Server) -> None:
    status, body = await server.ask(posting("/things", b"{", length=100))
    assert (status, json.loads(body)["title"]) == (408, "Body too slow")


async def _a_body_too_large_is_refused_while_it_is_sent(server: Server) -> None:
    status, _ = await server.ask(posting("/things", b" " * 500_000, length=8_000_000))
    assert status == 413
    head = b"POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _ = await server.ask(head + (b"1f4\r\n" + b" " * 500 + b"\r\n") * 5)
    assert status == 413


async def _a_body_that_nobody_reads_is_no_trouble(server: Server) -> None:
    assert await server.ask(posting("/deaf", b"\xff" * 100)) == (200, b"ok")


async def _a_stream_is_kept_alive_and_ends_with_its_reader(server: Server) -> None:
    requests = {
        "one": b"GET /quiet/one HTTP/1.1\r\nHost: x\r\n\r\n",
        "two": posting("/quiet/two", b"{}"),
        "three": posting("/waiting/three", b"\xff"),
    }
    connections = {name: await server.open(request) for name, request in requests.items()}
    for name, (reader, writer) in connections.items():
        beat = b"\r\n1\r\n\n\r\n" if name == "three" else b": heartbeat\r\n\r\n"
        async with asyncio.timeout(10):
            for _ in range(2):
                await reader.readuntil(beat)
        writer.close()
    state = await server.until_ended(lambda state: state["open"] == 0)
    assert {"one gone", "one closed", "two gone", "two closed", "three gone"} == set(state["ended"])


async def _a_reader_that_stops_reading_is_given_up(server: Server) -> None:
    _, writer = await server.open(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    state = await server.until_ended(lambda state: "flood gone" in state["ended"])
    assert state["open"] == 0
    writer.close()


async def _a_failing_source_cuts_the_connection(server: Server) -> None:
    reader, writer = await server.open(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    text = await asyncio.wait_for(reader.read(), 10)
    assert b"event: metadata" in text
    assert not text.endswith(b"0\r\n\r\n")
    writer.close()


async def _draining_ends_open_streams_in_order(server: Server) -> None:
    reader, writer = await server.open(b"GET /quiet/four HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readuntil(b"event: metadata")
        await server.ask(b"GET /drain HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"retry: 1000\r\n\r\n\r\n0\r\n\r\n")
    writer.close()
