"""Fixtures: servers in processes of their own, on databases of their own."""

import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests import fork_server
from tests.database import clone, drop
from tests.ports import free_port

START_SECONDS = 30.0
PEPPER = "0123456789abcdef0123456789abcdef"


class Served:
    """A running ``agent-service serve``."""

    source: Path | None = None
    """The folder of the program, for a process with a fresh interpreter instead of a fork."""
    start_seconds = START_SECONDS

    def __init__(self, database_url: str, folder: Path, **environment: str) -> None:
        self.port = int(environment.get("PORT", 0)) or free_port()
        self.base = f"http://127.0.0.1:{self.port}/api/v1"
        self.log = folder / f"server-{self.port}.log"
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "DATABASE_URL": database_url,
            "AGENT_AUTH": "none",
            "AGENT_DRAIN_SECONDS": "5",
            "PORT": str(self.port),
            **environment,
        }
        with self.log.open("wb") as log:
            self.process = self._start(log)

    def _start(self, log: IO[bytes]) -> fork_server.ForkedProcess | subprocess.Popen[bytes]:
        if self.source is None:
            return fork_server.start("app", "serve", env=self.environment, stdout=log)
        command = [sys.executable, "-m", "app", "serve"]
        return subprocess.Popen(command, cwd=self.source, env=self.environment, stdout=log, stderr=log)

    def wait_until_ready(self) -> "Served":
        deadline = time.monotonic() + self.start_seconds
        while self.get("/api/v1/health/ready") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def get(self, path: str, headers: dict[str, str] | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers=headers or {})
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def contents(values: Any) -> list[str]:
    """Return the contents of a thread's messages."""
    return [message["content"] for message in values["messages"]]


@contextlib.contextmanager
def serving(server_url: str, folder: Path, **environment: str) -> Iterator[Served]:
    """Start a server on a migrated database of its own."""
    url = asyncio.run(clone(server_url))
    server = Served(url, folder, **environment)
    try:
        yield server
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


AGENTS = Path(__file__).parent / "agents" / "agents.toml"


@pytest.fixture(scope="session")
def steered(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the agents of ``tests/journeys/agents``."""
    with serving(server_url, tmp_path_factory.mktemp("steered"), AGENT_CONFIG=str(AGENTS)) as server:
        yield server.wait_until_ready()


@pytest.fixture(scope="session")
def served(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all journeys of a worker."""
    with serving(server_url, tmp_path_factory.mktemp("served")) as server:
        yield server.wait_until_ready()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[LangGraphClient]:
    """The LangGraph SDK, pointed at the server."""
    async with get_client(url=served.base) as client:
        yield client
