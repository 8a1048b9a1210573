"""A TCP proxy for PostgreSQL that injects network faults."""

import asyncio
import contextlib
import enum
import random
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import parse_qs, urlsplit

IDLE = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery outside of a transaction: confirms a commit.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

PIECE = 1 << 16


class Trouble(enum.Enum):
    """Network faults."""

    NONE = enum.auto()
    SLOW = enum.auto()
    """Every chunk is delayed by 100 ms."""
    BLACKHOLE = enum.auto()
    """Nothing passes, without an error; it is delivered when the fault ends."""
    REFUSE = enum.auto()
    """All connections are reset, new ones too."""
    THROTTLE = enum.auto()
    """20 kB/s per connection."""
    CUT = enum.auto()
    """Connections are reset after 300 bytes of a response."""
    DEAF = enum.auto()
    """The server receives requests, but no response comes back. Connections are reset when the fault ends."""
    HALF_OPEN = enum.auto()
    """Connections that were open at the start of the fault are dead for good; new ones work."""
    LOST_COMMITS = enum.auto()
    """One of three commit confirmations is lost by a reset."""


class Proxy:
    """Proxy to ``upstream``; ``url`` is its own address, ``trouble`` the current fault."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self._upstream = upstream
        self._rng = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._calm = asyncio.Event()
        self._calm.set()
        self._open = 0
        self._dead = 0
        self.trouble = Trouble.NONE
        self.lost = 0
        """Commit confirmations that were dropped."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._reset()

    @property
    def url(self) -> str:
        """URL of the same database and user through the proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        parts = urlsplit(self._upstream)
        return f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"

    def aim(self, upstream: str) -> None:
        """Change the upstream address."""
        self._upstream = upstream

    @contextlib.asynccontextmanager
    async def having(self, trouble: Trouble) -> AsyncIterator[None]:
        """Inject ``trouble`` during the block."""
        self.trouble = trouble
        self._calm.clear()
        if trouble is Trouble.HALF_OPEN:
            self._dead = self._open
        if trouble is Trouble.REFUSE:
            self._reset()
        try:
            yield
        finally:
            self.trouble = Trouble.NONE
            self._calm.set()
            if trouble is Trouble.DEAF:
                self._reset()

    def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._open += 1
        number = self._open
        there: asyncio.StreamWriter | None = None
        try:
            if self.trouble is Trouble.REFUSE:
                return
            back, there = await self._connect()
            self._writers.add(there)
            asking = asyncio.ensure_future(self._questions(reader, there, number))
            try:
                await self._answers(back, writer, number)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        except OSError:
            pass  # expected
        finally:
            for one in (writer, there):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._upstream)
        query = parse_qs(parts.query)
        if "host" in query:
            return await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}")
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def _questions(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, number: int) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if number <= self._dead:
                    continue
                await self._delay(piece)
                there.write(piece)
                await there.drain()
        there.transport.abort()  # the client has gone away

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        room = 300
        while piece := await back.read(PIECE):
            if number <= self._dead:
                continue
            await self._delay(piece)
            if self.trouble is Trouble.CUT:
                writer.write(piece[:room])
                room -= len(piece)
                if room <= 0:
                    return
            elif self.trouble is Trouble.LOST_COMMITS and piece.endswith(IDLE) and self._rng.random() < 1 / 3:
                self.lost += 1
                return
            elif self.trouble is not Trouble.DEAF:
                writer.write(piece)
            await writer.drain()

    async def _delay(self, piece: bytes) -> None:
        if self.trouble is Trouble.BLACKHOLE:
            await self._calm.wait()
        elif self.trouble is Trouble.SLOW:
            await asyncio.sleep(0.1)
        elif self.trouble is Trouble.THROTTLE:
            await asyncio.sleep(len(piece) / 20_000)
