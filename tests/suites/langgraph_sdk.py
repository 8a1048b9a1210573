"""Run the integration suite of LangGraph's own SDK (MIT) against this server, which hosts the suite's graphs.

``python -m tests.suites.langgraph_sdk [--source CHECKOUT] [pytest arguments]``: without a checkout of
https://github.com/langchain-ai/langgraph, one is cloned into ``build/suites/``. The graphs and the tests run in an
environment of their own, with the released packages; their models are fakes, so nothing leaves this machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.ports import free_port

REPOSITORY = "https://github.com/langchain-ai/langgraph"
PACKAGES = ("langgraph", "langgraph-sdk", "langchain", "deepagents", "pytest", "pytest-asyncio", "websockets")
BUILD = Path("build/suites")
FIXED_URL = 'URL = "http://localhost:2024"'
"""The address that one module of the suite does not take from the environment."""

START_SECONDS = 180.0


def environment_of(folder: Path) -> Path:
    """Return the Python of an environment with the released packages, made when it is missing."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def project(source: Path, folder: Path, python: Path, url: str) -> Path:
    """Copy the suite with its graphs into ``folder``; return the agents file that names them."""
    sdk = source / "libs" / "sdk-py"
    shutil.copytree(sdk / "integration" / "graph", folder / "graph")
    shutil.copytree(sdk / "tests" / "integration", folder / "tests" / "integration")
    remote = folder / "tests" / "integration" / "test_remote_graph_v3.py"
    remote.write_text(remote.read_text().replace(FIXED_URL, f'URL = "{url}"'))
    graphs = json.loads((sdk / "integration" / "langgraph.json").read_text())["graphs"]
    tables = [f'[agents.{name}]\ngraph = "{path}"\n' for name, path in graphs.items()]
    agents = folder / "agents.toml"
    agents.write_text("\n".join(tables) + f'\n[graphs]\npython = "{python}"\ndependencies = ["."]\n')
    return agents


def wait_until_ready(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for the server. Raises ``SystemExit`` with its log if it ends."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/ok", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(log.read_text())


def main() -> int:
    """Run the suite; return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--source", type=Path, default=BUILD / "langgraph")
    arguments, more = parser.parse_known_args()
    source = arguments.source
    if not source.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(source)], check=True)
    python = environment_of(BUILD.absolute())
    port = free_port()
    url = f"http://localhost:{port}/api/v1"
    with tempfile.TemporaryDirectory() as folder:
        agents = project(source, Path(folder), python, url)
        log = Path(folder) / "server.log"
        command = [sys.executable, "-m", "app", "dev", str(agents), "--port", str(port), "--data-dir", f"{folder}/data"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until_ready(url, server, log)
            tests = [
                str(python),
                "-m",
                "pytest",
                "-q",
                "tests/integration",
                "-m",
                "integration",
                "-o",
                "asyncio_mode=auto",
            ]
            environment = {**os.environ, "LANGGRAPH_INTEGRATION_URL": url}
            return subprocess.run([*tests, *more], cwd=folder, env=environment, check=False).returncode
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    sys.exit(main())
