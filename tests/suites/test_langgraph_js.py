"""LangGraph's JavaScript SDK works unchanged with protocol v2."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.journeys.conftest import Served, steered
from tests.long_form import FULL
from tests.suites.npm import installed

__all__ = ["steered"]

PACKAGES = ("@langchain/langgraph-sdk@1.15.0",)
JOURNEYS = 7

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")


def test_every_journey_of_the_sdk_succeeds(steered: Served) -> None:
    node, folder = installed(*PACKAGES)
    script = Path(__file__).with_name("langgraph_js.mjs")
    command = [str(node), str(script), steered.base, str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    results = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith('{"name"')]
    assert [result for result in results if not result["ok"]] == [], finished.stderr[-2000:]
    assert len(results) == JOURNEYS, finished.stdout + finished.stderr
