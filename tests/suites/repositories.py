"""Suites that are git repositories, at a pinned commit."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.long_form import FULL

HOME = Path(sys.prefix) / ".suites"
"""Where ``make check`` installs what suites need, and this function their repositories."""

FETCH_SECONDS = 300 if FULL else 30


def checkout(name: str, source: str, commit: str) -> Path:
    """Return the folder of the repository ``source`` at ``commit``; ``NAME_SOURCE`` names a checkout that is there.

    Skips the test where it cannot be fetched.
    """
    if given := os.environ.get(f"{name.upper()}_SOURCE"):
        return Path(given)
    folder = HOME / name / commit
    if not folder.is_dir():
        HOME.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=HOME))
        try:
            for command in (
                ["init", "-q"],
                [
                    "-c",
                    "http.lowSpeedLimit=1000",
                    "-c",
                    "http.lowSpeedTime=10",
                    "fetch",
                    "-q",
                    "--depth",
                    "1",
                    source,
                    commit,
                ],
                ["checkout", "-q", "FETCH_HEAD"],
            ):
                _git(part, name, command)
            folder.parent.mkdir(exist_ok=True)
            part.rename(folder)  # in one step: other processes may fetch it as well
        except OSError:
            assert folder.is_dir()
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _git(folder: Path, name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"NOT RUN: {name} could not be fetched: {error}")
    if done.returncode:
        pytest.skip(f"NOT RUN: {name} could not be fetched: {done.stderr[-300:]}")
