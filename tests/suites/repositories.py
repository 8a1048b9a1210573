"""Suites that are git repositories, at a pinned commit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / ".suites"
"""Where ``make suites`` installs what suites need, and this function their repositories."""

FETCH_SECONDS = 300


def checkout(name: str, source: str, commit: str) -> Path:
    """Return the folder of the repository ``source`` at ``commit``; ``NAME_SOURCE`` names a checkout that is there.

    Skips the test where it cannot be fetched.
    """
    if given := os.environ.get(f"{name.upper()}_SOURCE"):
        return Path(given)
    folder = HOME / name / commit
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for command in (
            ["init", "-q"],
            ["fetch", "-q", "--depth", "1", source, commit],
            ["checkout", "-q", "FETCH_HEAD"],
        ):
            done = subprocess.run(
                ["git", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
            )
            if done.returncode:
                shutil.rmtree(folder)
                pytest.skip(f"NOT RUN: {name} could not be fetched: {done.stderr[-300:]}")
    return folder
