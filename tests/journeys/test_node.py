"""``@langchain/langgraph-sdk`` and ``openai`` for JavaScript work unchanged, against a real server."""

import asyncio
import os
import shutil
import warnings
from pathlib import Path

import pytest

from tests.journeys.conftest import Served

FOLDER = Path(__file__).parent / "node"


async def ran(folder: Path, *command: str) -> tuple[int, str]:
    names = ("PATH", "HOME", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "NPM_CONFIG_USERCONFIG", "npm_config_registry")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, "it took more than two minutes"
    return process.returncode or 0, output.decode()


def skip(reason: str) -> None:
    """Skip with a message: the JavaScript clients stay untested."""
    warnings.warn(pytest.PytestWarning(f"the JavaScript SDKs were not tested: {reason}"), stacklevel=2)
    pytest.skip(reason)


@pytest.mark.filterwarnings("default::pytest.PytestWarning")
async def test_the_javascript_sdks_work_unchanged(served: Served, steered: Served, tmp_path: Path) -> None:
    if not shutil.which("node") or not shutil.which("npm"):
        skip("node and npm are not installed")
    for name in ("package.json", "journey.mjs", "openai.mjs"):
        shutil.copy(FOLDER / name, tmp_path)
    code, output = await ran(tmp_path, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
    if code:
        skip(f"npm could not install it: {output[-300:]}")
    for journey in ("journey.mjs", "openai.mjs"):
        code, output = await ran(tmp_path, "node", journey, served.base, steered.base)
        assert code == 0, output
        assert "every step went well" in output
