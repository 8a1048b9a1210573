"""The benchmark's HTTP client, against a server that splits its responses anywhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bench.client import Answer, Connection, Failed, connect, request
from bench.operations import stream100, token_bytes

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'
EVENT = b"event: messages\r\ndata: []\r\n\r\n"
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n3\r\nend\r\n0\r\n\r\n" % (
    len(EVENT),
    EVENT,
)


@contextlib.asynccontextmanager
async def answering(answer: bytes, piece: int) -> AsyncIterator[Connection]:
    """A connection to a server that answers each request with ``answer``, so many bytes at a time, and hangs up on
    ``/gone``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while b"/gone" not in await reader.readuntil(b"\r\n\r\n"):
                for at in range(0, len(answer), piece):
                    writer.write(answer[at : at + piece])
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connection = await connect(server.sockets[0].getsockname()[1])
        yield connection
        connection.close()


async def asked(answer: bytes, piece: int) -> Answer:
    async with answering(answer, piece) as connection:
        first = await connection.ask(request("GET", "/"))
        again = await connection.ask(request("GET", "/"))
        assert again[:2] == first[:2]
        return first


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_a_response_with_a_length_is_read(piece: int) -> None:
    answer = await asked(WHOLE, piece)
    assert answer[:2] == (200, b'{"ok":true}')
    assert answer.first > 0


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_a_chunked_response_is_reassembled(piece: int) -> None:
    assert (await asked(CHUNKED, piece))[:2] == (201, EVENT + b"end")


@pytest.mark.parametrize("piece", [1, 1000])
async def test_the_first_token_is_timed_also_when_split(piece: int) -> None:
    answer = await asked(CHUNKED, piece)
    assert answer.token >= answer.first > 0


async def test_a_closed_connection_is_a_failure() -> None:
    async with answering(WHOLE, 1000) as connection:
        with pytest.raises(Failed, match="closed"):
            await connection.ask(request("GET", "/gone"))
        with pytest.raises(Failed, match="closed"):
            connection.ask(request("GET", "/"))


async def test_a_stream_with_missing_tokens_is_a_failure() -> None:
    async with answering(CHUNKED.replace(b"201 Created", b"200 OK"), 1000) as connection:
        with pytest.raises(Failed, match="not a whole stream"):
            await stream100(connection)


def test_bytes_of_a_token_are_the_mean_of_its_events() -> None:
    token = b"event: messages\r\ndata: %b\r\n\r\n"
    assert token_bytes(b"event: metadata\r\ndata: {}\r\n\r\n" + token % b"1" + token % b"333") == len(token % b"22")
