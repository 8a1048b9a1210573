"""One server with the project of ``tests/graphs/project`` for all tests of a worker."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served, serving

PROJECT = Path(__file__).parent / "project"


@pytest.fixture(scope="session")
def hosted(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the project, started with its ``langgraph.json``."""
    folder = tmp_path_factory.mktemp("hosted")
    environment = {"AGENT_CONFIG": str(PROJECT / "langgraph.json"), "EFFECTS": str(folder / "effects")}
    with serving(server_url, folder, **environment) as server:
        server.start_seconds = 100.0  # it imports langchain
        yield server.wait_until_ready()


@pytest.fixture
async def client(hosted: Served) -> AsyncIterator[LangGraphClient]:
    """The LangGraph SDK, pointed at the server."""
    async with get_client(url=hosted.base) as client:
        yield client
