"""AG-UI's own client and CopilotKit's runtime client work unchanged."""

from pathlib import Path

import pytest

from tests.journeys.conftest import Served, steered
from tests.long_form import FULL
from tests.suites.environments import checks_of
from tests.suites.npm import installed

__all__ = ["steered"]

PACKAGES = ("@ag-ui/client@1.0.0", "@copilotkit/core@1.75.0")
JOURNEYS = 10

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm"),
    pytest.mark.timeout(1000),
]


def test_every_journey_of_the_clients_succeeds(steered: Served) -> None:
    node, folder = installed(*PACKAGES)
    script = Path(__file__).with_name("ag_ui.mjs")
    command = [str(node), str(script), f"http://127.0.0.1:{steered.port}", str(folder)]
    results = checks_of(command, seconds=120)
    assert {name: detail for name, detail in results.items() if detail} == {}
    assert len(results) == JOURNEYS
