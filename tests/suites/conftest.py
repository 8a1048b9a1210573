"""A server of the agents that front ends talk to, and a browser for these."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.journeys.conftest import Served, serving
from tests.suites.browsers import chromium

AGENTS = Path(__file__).parent / "front_ends" / "agents.toml"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that lets the tool ``clock`` end."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def front_ends(server_url: str, gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the agents in ``front_ends``."""
    environment = {"AGENT_CONFIG": str(AGENTS), "GATE": str(gate)}
    with serving(server_url, tmp_path_factory.mktemp("server"), **environment) as served:
        served.start_seconds = 100.0  # it imports langchain
        yield served.wait_until_ready()


@pytest.fixture(scope="module")
def browser(front_ends: Served) -> Iterator[Browser]:
    """A browser, which starts after the server and stops before it."""
    with chromium() as browser:
        yield browser
