"""Environments of Python with the packages of a suite, which this project's own does not have."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.suites.repositories import HOME

ROOT = Path(__file__).parents[2]

INSTALL_SECONDS = 600


def python_with(name: str, *packages: str) -> Path:
    """Return the Python of the environment ``name`` with exactly these ``packages``.

    Skips the test where they cannot be installed.
    """
    folder = HOME / name / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *packages],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.skip(f"NOT RUN: {', '.join(packages)} could not be installed: {done.stderr[-300:]}")
    return python


def checks_of(command: list[str], seconds: float) -> dict[str, str]:
    """Run the journeys of a client, which print ``{"name", "ok", "detail"?}`` for each; return what failed by name.

    The value of a check that passed is empty.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
    results: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert results, done.stdout[-2000:] + done.stderr[-2000:]
    return {one["name"]: "" if one["ok"] else str(one.get("detail")) for one in results}
