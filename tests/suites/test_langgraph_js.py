"""LangGraph's JavaScript SDK works unchanged: every method of it, and protocol v2."""

import json
import subprocess
from pathlib import Path

import pytest

from docs.langgraph import DIFFERENT, JAVASCRIPT
from tests.journeys.conftest import Served, steered
from tests.long_form import FULL
from tests.suites.npm import installed

__all__ = ["steered"]

PACKAGES = ("@langchain/langgraph-sdk@1.15.0",)
JOURNEYS, METHOD_JOURNEYS = 7, 8

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")


def _finished(server: Served, name: str, journeys: int) -> str:
    """Run the ``journeys`` of a script, which must succeed; return all that it has printed."""
    node, folder = installed(*PACKAGES)
    command = [str(node), str(Path(__file__).with_name(name)), server.base, str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    results = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith('{"name"')]
    assert [result for result in results if not result["ok"]] == [], finished.stderr[-2000:]
    assert len(results) == journeys, finished.stdout + finished.stderr
    return finished.stdout


def test_every_journey_of_the_sdk_succeeds(steered: Served) -> None:
    _finished(steered, "langgraph_js.mjs", JOURNEYS)


def test_every_method_of_the_sdk_works(steered: Served) -> None:
    found = json.loads(_finished(steered, "langgraph_js_methods.mjs", METHOD_JOURNEYS).splitlines()[-1])
    named = {f"{area}.{name}" for area, names in JAVASCRIPT.items() for name in names.split()}
    assert set(found["methods"]) == named, "docs/langgraph.py names the methods of the SDK"
    assert set(found["methods"]) - set(found["called"]) == set(DIFFERENT)
