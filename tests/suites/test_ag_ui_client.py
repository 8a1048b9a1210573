"""AG-UI's own client and CopilotKit's runtime client work unchanged."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.journeys.conftest import Served, steered
from tests.long_form import FULL
from tests.suites.npm import installed

__all__ = ["steered"]

PACKAGES = ("@ag-ui/client@1.0.0", "@copilotkit/core@1.75.0")
JOURNEYS = 10

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")


def test_every_journey_of_the_clients_succeeds(steered: Served) -> None:
    node, folder = installed(*PACKAGES)
    script = Path(__file__).with_name("ag_ui.mjs")
    command = [str(node), str(script), f"http://127.0.0.1:{steered.port}", str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    results = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith('{"name"')]
    assert [result for result in results if not result["ok"]] == [], finished.stderr[-2000:]
    assert len(results) == JOURNEYS, finished.stdout + finished.stderr
