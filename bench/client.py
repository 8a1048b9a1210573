"""A minimal HTTP/1.1 client for prepared requests.

Client libraries cost more than the server that they measure (aiohttp: 1.5 ms for an echo); this one costs some 40 µs a
request, which leaves the shared cores to the server.
"""

import asyncio
import json
import time
from typing import Any, NamedTuple, cast

TOKEN = b"event: messages"


class Answer(NamedTuple):
    """A response. ``first`` and ``token``: seconds to the first byte of the body, and to the first token."""

    status: int
    body: bytes
    first: float
    token: float


class Failed(Exception):
    """A request failed or its response is wrong."""


def request(method: str, path: str, value: Any = None, key: str = "") -> bytes:
    """Encode a request with a JSON body; ``key`` is the API key, if needed."""
    body = b"" if value is None else json.dumps(value).encode()
    kind = "content-type: application/json\r\n" if body else ""
    key_header = f"x-api-key: {key}\r\n" if key else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key_header}{kind}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self.closes = False
        """The server closes the connection after the last response."""
        self._clear()

    def _clear(self) -> None:
        self._input = bytearray()
        self._body = bytearray()
        self._status = 0
        self._left = -1  # remaining bytes of the body or chunk; -1: the length is next
        self._chunked = False
        self._first = self._token = 0.0

    def ask(self, ready: bytes) -> "asyncio.Future[Answer]":
        """Send an encoded request. The future raises ``Failed`` if the connection breaks."""
        if self._transport is None:
            raise Failed("the connection is closed")
        assert self._waiting is None
        self._waiting = asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(ready)
        return self._waiting

    def close(self) -> None:
        """Close the connection; no request may be pending."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Failed(f"the connection was closed ({exc})"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._input += data
        if not self._status and not self._head():
            return
        if not self._first and self._input:
            self._first = time.perf_counter() - self._began
        if not self._token and TOKEN in self._input:
            self._token = time.perf_counter() - self._began
        if self._chunks() if self._chunked else self._whole():
            self._answered()

    def _head(self) -> bool:
        end = self._input.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._input[:end]).lower()
        self._status = int(head[9:12])
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        self.closes = b"\r\nconnection: close" in head
        if not self._chunked:
            _, found, length = head.partition(b"\r\ncontent-length:")
            self._left = int(length.split(b"\r\n", 1)[0]) if found else 0
        del self._input[: end + 4]
        return True

    def _whole(self) -> bool:
        if len(self._input) < self._left:
            return False
        self._body = self._input
        return True

    def _chunks(self) -> bool:
        """Parse the received chunks; return whether the body is complete."""
        at = 0
        while True:
            if self._left < 0:
                end = self._input.find(b"\r\n", at)
                if end < 0:
                    break
                self._left = int(self._input[at:end], 16)
                at = end + 2
            if len(self._input) < at + self._left + 2:
                break
            if self._left == 0:
                return True
            self._body += self._input[at : at + self._left]
            at += self._left + 2
            self._left = -1
        del self._input[:at]
        return False

    def _answered(self) -> None:
        waiting, self._waiting = self._waiting, None
        answer = Answer(self._status, bytes(self._body), self._first, self._token)
        self._clear()
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


async def connect(port: int) -> Connection:
    """Connect to a server on this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection
