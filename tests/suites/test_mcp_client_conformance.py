"""MCP's own conformance suite against the client side: agents' tools of MCP servers, in both revisions.

The scenarios of authorization are left out: the client has no OAuth flow, tokens come from the agents file. So is
elicitation-sep1034-client-defaults: it wants an answer within the request, and here a run ends to ask a person.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.long_form import FULL
from tests.suites.test_mcp_conformance import SUITE_SECONDS, suite

__all__ = ["suite"]

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")

SCENARIOS = {
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
    "2025-11-25": ("initialize", "tools_call", "sse-retry", "json-schema-2020-12-preservation"),
}


@pytest.mark.timeout(SUITE_SECONDS)
@pytest.mark.parametrize("revision, scenario", [(one, name) for one, names in SCENARIOS.items() for name in names])
def test_a_scenario_passes(suite: list[str], revision: str, scenario: str, tmp_path: Path) -> None:
    client = f"{sys.executable} -m tests.suites.mcp_client"
    command = [*suite, "client", "--command", client, "--scenario", scenario, "--spec-version", revision]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "-o", str(tmp_path)], cwd=root, capture_output=True, text=True, check=False, timeout=SUITE_SECONDS
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "OVERALL: PASSED" in done.stdout + done.stderr
