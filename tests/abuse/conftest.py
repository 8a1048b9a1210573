"""One attacked server per test worker. ``FULL=1`` in the environment selects the long form."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from tests.abuse.server import AttackedServer
from tests.database import clone, drop

FULL = os.environ.get("FULL") == "1"


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
