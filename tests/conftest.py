"""What every test may use: a real database, no network but this machine, no real model."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.database import Server, clone, drop

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0"})
SETTINGS = ("DATABASE_", "MIGRATE_DATABASE_", "AGENT_", "OPENAI_", "ANTHROPIC_", "OTEL_", "REDIS_")

_server: Server | None = None


def pytest_configure(config: pytest.Config) -> None:
    """Start the one server of the run in the process that hands out the tests, before its workers start."""
    for name in list(os.environ):
        if name.startswith(SETTINGS):
            del os.environ[name]
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    global _server  # noqa: PLW0603  pytest's hooks share nothing else
    _server = Server()
    try:
        _server.start()
    except BaseException:
        _server.stop()
        raise


def pytest_configure_node(node: Any) -> None:
    """Tell a worker process where the server is (pytest-xdist)."""
    assert _server is not None
    node.workerinput["server_url"] = _server.url


def pytest_unconfigure() -> None:
    """Stop the server with the run."""
    if _server is not None:
        _server.stop()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The superuser's address of the run's server."""
    worker = getattr(request.config, "workerinput", None)
    if worker is not None:
        return str(worker["server_url"])
    assert _server is not None
    return _server.url


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """A migrated database that the tests of one worker share; each takes its own tenant."""
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
async def fresh_database_url(server_url: str) -> AsyncIterator[str]:
    """A migrated database for one test alone: leases, LISTEN, counts over all rows."""
    url = await clone(server_url)
    yield url
    await drop(server_url, url)


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine in no test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise AssertionError(f"a test connects to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
