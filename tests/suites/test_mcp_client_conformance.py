"""MCP's own conformance suite against the client side: agents' tools of MCP servers, in both revisions.

One check of elicitation-sep1034-client-defaults cannot pass: it wants an answer within the request, and here a run ends
to ask a person; the server sees the call again, with the answer. The two scenarios of authorization that the suite has
for revision 2025-03-26 are of no revision spoken here.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long_form import FULL
from tests.suites.test_mcp_conformance import SUITE_SECONDS, suite

__all__ = ["suite"]

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")

CLIENT_MILLISECONDS = 120_000
"""How long the client may take, which begins with its imports, on a busy machine."""
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


def run(suite: list[str], revision: str, scenario: str, folder: Path) -> tuple[int, str]:
    """Run a scenario; return its exit code and what it prints."""
    client = f"{sys.executable} -m tests.suites.mcp_client"
    command = [*suite, "client", "--command", client, "--scenario", scenario, "--spec-version", revision]
    command += ["--timeout", str(CLIENT_MILLISECONDS)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "-o", str(folder)], cwd=root, capture_output=True, text=True, check=False, timeout=SUITE_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(SUITE_SECONDS)
@pytest.mark.parametrize("revision, scenario", [(one, name) for one, names in SCENARIOS.items() for name in names])
def test_a_scenario_passes(suite: list[str], revision: str, scenario: str, tmp_path: Path) -> None:
    code, printed = run(suite, revision, scenario, tmp_path)
    assert code == 0, printed[-4000:]
    assert "OVERALL: PASSED" in printed


@pytest.mark.timeout(SUITE_SECONDS)
def test_an_answer_has_the_defaults_of_its_form(suite: list[str], tmp_path: Path) -> None:
    _, printed = run(suite, "2025-11-25", "elicitation-sep1034-client-defaults", tmp_path)
    passed = re.findall(r"client-elicitation-sep1034-(\w+)-default *\]\S* \S*SUCCESS", printed)
    assert sorted(passed) == ["boolean", "enum", "integer", "number", "string"], printed[-4000:]
