"""Start test servers and send them requests."""

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from tests import fork_server
from tests.ports import free_port
from tests.waiting import SECONDS, until

ROOT = Path(__file__).parents[2]


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached every thread of the process: until then one may still accept a connection."""
    return all(
        status.read_text().rpartition(")")[2].split()[0] == "T" for status in Path(f"/proc/{pid}/task").glob("*/stat")
    )


class Program:
    """A running server, its output, and connections to it."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.port = options.setdefault("port", free_port())
        self._log = folder / f"output-{self.port}"
        with self._log.open("wb") as out:
            self.process = fork_server.start(
                "tests.serving.program", json.dumps(options), cwd=ROOT, stdout=out, start_new_session=True
            )

    def output(self) -> list[str]:
        """Return the lines printed so far."""
        return self._log.read_text().splitlines()

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the first log event ``name`` and return its fields."""
        lines = until(lambda: [line for line in self.output() if f'"event": "{name}"' in line])
        fields: dict[str, Any] = json.loads(lines[0])
        return fields

    def workers(self, count: int = 1) -> list[int]:
        """Wait until ``count`` workers have become ready; return their process ids."""
        return [int(line.split()[1]) for line in until(lambda: self._ready(count))]

    def _ready(self, count: int) -> list[str]:
        lines = [line for line in self.output() if line.startswith("ready ")]
        return lines[:count] if len(lines) >= count else []

    def send(self, request: bytes) -> socket.socket:
        """Open a connection and send ``request``."""
        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        connection.sendall(request)
        return connection

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON body of a GET. Raises ``ValueError`` if the answer has none."""
        with self.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode()) as connection:
            text = read_all(connection)
        if b"{" not in text:
            raise ValueError(f"no JSON in the answer {text!r}")
        body: dict[str, Any] = json.loads(text[text.index(b"{") : text.rindex(b"}") + 1])
        return body

    def stream(self) -> socket.socket:
        """Open a stream and wait for its first event."""
        connection = self.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        text = b""
        while b"event: first" not in text:
            text += connection.recv(4096)
        return connection

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for its exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer closes."""
    text = b""
    while chunk := connection.recv(65536):
        text += chunk
    return text
