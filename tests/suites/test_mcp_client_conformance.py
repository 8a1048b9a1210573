"""MCP's own conformance suite against the client side: agents' tools of MCP servers, in both revisions.

Left out is elicitation-sep1034-client-defaults: it wants an answer within the request, and here a run ends to ask a
person. The two scenarios of authorization that the suite has for revision 2025-03-26 are of no revision spoken here.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.long_form import FULL
from tests.suites.test_mcp_conformance import SUITE_SECONDS, suite

__all__ = ["suite"]

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")

SIGN_INS = (
    "metadata-default",
    "metadata-var1",
    "metadata-var2",
    "metadata-var3",
    "basic-cimd",
    "pre-registration",
    "scope-from-www-authenticate",
    "scope-from-scopes-supported",
    "scope-omitted-when-undefined",
    "scope-step-up",
    "scope-retry-limit",
    "token-endpoint-auth-basic",
    "token-endpoint-auth-post",
    "token-endpoint-auth-none",
)
"""Scenarios of authorization, in both revisions."""
NEWER_SIGN_INS = (
    "resource-mismatch",
    "offline-access-scope",
    "offline-access-not-supported",
    "authorization-server-migration",
    "iss-supported",
    "iss-not-advertised",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
)
SCENARIOS = {
    "2026-07-28": (
        *(f"auth/{name}" for name in (*SIGN_INS, *NEWER_SIGN_INS)),
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
    "2025-11-25": (
        *(f"auth/{name}" for name in SIGN_INS),
        "initialize",
        "tools_call",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
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
