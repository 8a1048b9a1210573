"""One server for the attacks of a worker. ``FULL=1`` in the environment asks for the long form."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from tests.abuse.server import Attacked
from tests.database import clone, drop

FULL = os.environ.get("FULL") == "1"


@pytest.fixture(scope="session")
def attacked(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server with two tenants, watched from inside."""
    url = asyncio.run(clone(server_url))
    server = Attacked(url, tmp_path_factory.mktemp("attacked"))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))
