"""The command line of MCP's inspector against this server: what a developer's first look shows."""

import subprocess
from typing import Any

import msgspec
import pytest

from tests.journeys.conftest import Served, served
from tests.long_form import FULL
from tests.suites.npm import installed

__all__ = ["served"]

PACKAGE = "@modelcontextprotocol/inspector@2.12.0"

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def inspector() -> list[str]:
    """The command of the inspector. Skips where Node or the package cannot be installed."""
    node, folder = installed(PACKAGE)
    return [str(node), str(folder / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")]


def inspect(inspector: list[str], served: Served, *arguments: str) -> Any:
    """Return the result of a request of the inspector, as it prints it."""
    url = f"http://127.0.0.1:{served.port}/mcp"
    command = [*inspector, "--cli", url, "--transport", "http", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return msgspec.json.decode(done.stdout)


def test_the_inspector_lists_agents_and_calls_one(inspector: list[str], served: Served) -> None:
    tools = inspect(inspector, served, "--method", "tools/list")["tools"]
    assert "echo" in {tool["name"] for tool in tools}
    called = inspect(inspector, served, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "input=hello")
    assert [part["text"] for part in called["content"]] == ["echo: hello"]
    prompts = inspect(inspector, served, "--method", "prompts/list")["prompts"]
    assert "assistant" in {prompt["name"] for prompt in prompts}
