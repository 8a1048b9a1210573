"""One attacked server per test worker."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.abuse.server import AttackedServer
from tests.database import clone, drop


@pytest.fixture(scope="session")
def attacked_server(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedServer]:
    """A server with two tenants and a probe on its event loop."""
    url = asyncio.run(clone(server_url))
    server = AttackedServer(url, tmp_path_factory.mktemp("attacked_server"))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))
