"""The integration suite of LangGraph's own SDK (MIT) against this server, which hosts the suite's graphs.

The suite is no package: it comes from a checkout of LangGraph's repository at ``COMMIT``, made here or named by
``LANGGRAPH_SOURCE``. Tests and graphs run with released packages in an environment of their own; their models are
fakes. One module of the suite has its server's address in its text, which is replaced.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.journeys.conftest import serving
from tests.long_form import FULL
from tests.suites.environments import python_with
from tests.suites.repositories import checkout

REPOSITORY = "https://github.com/langchain-ai/langgraph"
COMMIT = "f09cfe8ffc1eeffd68f4b628ed69c30f7cad229f"
PACKAGES = (
    "langgraph==1.2.24",
    "langgraph-sdk==0.4.14",
    "langchain==1.5.2",
    "deepagents==0.7.32",
    "pytest==9.2.0",
    "pytest-asyncio==1.5.0",
)
FIXED_URL = 'URL = "http://localhost:2024"'
SECONDS = 600

TESTS = 55

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages, and clones a repository"),
    pytest.mark.timeout(3 * SECONDS),
]


@pytest.fixture(scope="module")
def source() -> Path:
    """The checkout."""
    return checkout("langgraph", REPOSITORY, COMMIT)


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of an environment with the released packages."""
    return python_with("langgraph", *PACKAGES)


def test_the_sdk_passes_its_own_integration_suite(source: Path, python: Path, server_url: str, tmp_path: Path) -> None:
    sdk = source / "libs" / "sdk-py"
    shutil.copytree(sdk / "integration" / "graph", tmp_path / "graph")
    shutil.copytree(sdk / "tests" / "integration", tmp_path / "tests" / "integration")
    graphs = json.loads((sdk / "integration" / "langgraph.json").read_text())["graphs"]
    tables = [f'[agents.{name}]\ngraph = "{path}"\n' for name, path in graphs.items()]
    agents = tmp_path / "agents.toml"
    agents.write_text("\n".join(tables) + f'\n[graphs]\npython = "{python}"\ndependencies = ["."]\n')
    with serving(server_url, tmp_path, AGENT_CONFIG=str(agents)) as server:
        server.start_seconds = 180.0  # it imports what the graphs import
        server.wait_until_ready()
        remote = tmp_path / "tests" / "integration" / "test_remote_graph_v3.py"
        remote.write_text(remote.read_text().replace(FIXED_URL, f'URL = "{server.base}"'))
        options = ["-q", "-rf", "-m", "integration", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"]
        suite = subprocess.run(
            [str(python), "-m", "pytest", "tests/integration", *options],
            cwd=tmp_path,
            env={**os.environ, "LANGGRAPH_INTEGRATION_URL": server.base},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    failed = set(re.findall(r"^FAILED \S+::(\w+)", suite.stdout, re.MULTILINE))
    passed = re.search(r"(\d+) passed", suite.stdout)
    assert passed is not None, suite.stdout
    assert not failed, suite.stdout
    assert int(passed[1]) == TESTS
