"""MCP's own conformance suite against the server side, in both revisions; the newer one is a short form for every run.

Pinned, because the tag ``latest`` tests older revisions. Scenarios of extensions are not scored by the suite: they call
tools whose agents this server does not have.
"""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests import fork_server
from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.long_form import FULL
from tests.suites.npm import installed

PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
SCORED = {"2026-07-28": 37, "2025-11-25": 30}
SUITE_SECONDS = 600

LONG_FORM = pytest.mark.skipif(not FULL, reason="make suites runs it; the newer revision is the short form")


class Fixtures(Served):
    """``agent-service serve`` with the fixtures of the suite."""

    def _start(self, log: IO[bytes]) -> fork_server.ForkedProcess:
        return fork_server.start("tests.suites.mcp_fixtures", "serve", env=self.environment, stdout=log)


@pytest.fixture(scope="module")
def suite() -> list[str]:
    """The command of the suite. Skips where Node or the package cannot be installed."""
    node, folder = installed(PACKAGE)
    script = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    return [str(node), str(script)]


@pytest.fixture(scope="module")
def fixtures(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = asyncio.run(clone(server_url))
    server = Fixtures(url, tmp_path_factory.mktemp("mcp"))
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


@pytest.mark.timeout(SUITE_SECONDS)
@pytest.mark.parametrize("revision", ["2026-07-28", pytest.param("2025-11-25", marks=LONG_FORM)])
def test_every_scored_scenario_passes(suite: list[str], fixtures: Served, revision: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{fixtures.port}/mcp-fixtures"
    command = [*suite, "server", "--url", url, "--requirements", revision, "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SUITE_SECONDS)
    summary = done.stdout.rpartition("=== SUMMARY ===")[2]
    all_results, _, unscored = summary.partition("Not scored for")
    passed = set(re.findall(r"^✓ ([\w-]+):", all_results, re.MULTILINE))
    failed = set(re.findall(r"^✗ ([\w-]+):", all_results, re.MULTILINE))
    extra = set(re.findall(r"^\s+[✓✗] ([\w-]+) ", unscored, re.MULTILINE))
    assert failed - extra == set(), done.stdout[-4000:]
    assert (done.returncode, len(passed - extra)) == (0, SCORED[revision]), done.stdout[-4000:]
