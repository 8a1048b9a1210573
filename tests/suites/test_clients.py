"""Clients of other projects work unchanged: LiteLLM, the AI SDK's chat and its Open Responses, the SDKs of A2A."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database import clone, drop
from tests.journeys.conftest import Served, served, steered
from tests.long_form import FULL
from tests.suites.environments import checks_of, python_with
from tests.suites.npm import installed

__all__ = ["served", "steered"]

SUITES = Path(__file__).parent
AGENTS = SUITES.parent / "protocols" / "agents" / "agents.toml"
SECONDS = 300

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages"),
    pytest.mark.timeout(1000),
]


def failed(results: dict[str, str]) -> dict[str, str]:
    return {name: detail for name, detail in results.items() if detail}


def test_litellm(served: Served) -> None:
    python = python_with("litellm", "litellm==1.110.2")
    address = f"http://127.0.0.1:{served.port}"
    results = checks_of([str(python), "-m", "tests.suites.litellm_client", address], SECONDS)
    assert failed(results) == {}
    assert len(results) == 8


def test_the_ai_sdks_provider_of_open_responses(served: Served) -> None:
    node, folder = installed("ai@7.0.173", "@ai-sdk/open-responses@2.0.36")
    address = f"http://127.0.0.1:{served.port}"
    results = checks_of([str(node), str(SUITES / "open_responses.mjs"), address, str(folder)], SECONDS)
    assert failed(results) == {}
    assert len(results) == 6


def test_the_chat_behind_use_chat(steered: Served) -> None:
    node, folder = installed("@ai-sdk/react@4.0.177", "react@19.2.1")
    address = f"http://127.0.0.1:{steered.port}"
    results = checks_of([str(node), str(SUITES / "use_chat.mjs"), address, str(folder)], SECONDS)
    assert failed(results) == {}
    assert len(results) == 7


@pytest.fixture(scope="module")
def signing_peer(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that authenticates its callers and signs its cards."""
    url = asyncio.run(clone(server_url))
    settings = {
        "AGENT_CONFIG": str(AGENTS),
        "AGENT_EGRESS_ALLOW": "127.0.0.1",
        "AGENT_CARD_KEY": "1f" * 32,
        "AGENT_WEBHOOK_SECRET": "0123456789abcdef" * 2,
    }
    server = Served(url, tmp_path_factory.mktemp("signing"), **settings)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


def test_the_sdk_of_a2a(signing_peer: Served) -> None:
    python = python_with("a2a", "a2a-sdk[http-server]==1.3.0", "pyjwt[crypto]==2.15.1")
    command = [str(python), "-m", "tests.suites.a2a_client", f"http://127.0.0.1:{signing_peer.port}", "none"]
    results = checks_of(command, SECONDS)
    assert failed(results) == {}
    assert len(results) == 11


def test_the_sdk_of_a2a_0_3(signing_peer: Served) -> None:
    python = python_with("a2a-0.3", "a2a-sdk==0.3.26")
    command = [str(python), "-m", "tests.suites.a2a_v03_client", f"http://127.0.0.1:{signing_peer.port}"]
    results = checks_of(command, SECONDS)
    assert failed(results) == {}
    assert len(results) == 4
