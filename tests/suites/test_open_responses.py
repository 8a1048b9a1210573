"""The compliance tests of Open Responses against the server, with an agent whose model calls the tool of a client.

They come by git alone, and run with bun and zod of npm.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Replay, Stage
from tests.llm.wires import Say, events
from tests.suites.npm import installed
from tests.suites.repositories import checkout

SOURCE = "https://github.com/openresponses/openresponses.git"
COMMIT = "92c12d96d7b61d6d15e2214daa5e9c6000ab6e1c"
PACKAGES = ("bun@1.4.4", "zod@3.25.76")
SUITE_SECONDS = 300
PASSED = 17
ARGUMENTS = '{"location": "San Francisco, CA"}'


class Provider(FakeProvider):
    """A provider whose model calls the first tool that it is offered, and else says hello."""

    async def _play(self, stage: Stage) -> web.StreamResponse:
        tools = self.requests[-1].body.get("tools")
        said = Say(text="", calls=[(tools[0]["function"]["name"], ARGUMENTS)]) if tools else Say()
        return await stage.send(Replay(data=b"".join(events(stage.vendor, said))))


@pytest.mark.timeout(SUITE_SECONDS)
async def test_every_compliance_test_passes(database_url: str, tmp_path: Path) -> None:
    source = checkout("openresponses", SOURCE, COMMIT)
    _, folder = await asyncio.to_thread(installed, *PACKAGES)
    for part in ("bin", "src"):
        shutil.copytree(source / part, tmp_path / part)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    agents = tmp_path / "agents.toml"
    agents.write_text('[agents.open]\nmodel = "openai:large-chat"\n')
    async with Provider() as provider:
        settings = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "sk-test", "AGENT_CONFIG": str(agents)}
        server = Served(database_url, tmp_path, **settings)
        try:
            await asyncio.to_thread(server.wait_until_ready)
            bun = folder / "node_modules" / ".bin" / "bun"
            url = f"http://127.0.0.1:{server.port}/v1"
            command = [str(bun), "bin/compliance-test.ts", "-u", url, "-k", "none", "-m", "open", "--json"]
            pipe = asyncio.subprocess.PIPE
            environment = {**os.environ, "NO_COLOR": "1"}
            suite = await asyncio.create_subprocess_exec(
                *command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe
            )
            output, errors = await suite.communicate()
        finally:
            await asyncio.to_thread(server.stop)
    results = json.loads(output)["results"]
    failed = {one["id"]: one["errors"] for one in results if one["status"] != "passed"}
    assert failed == {}, errors.decode()[-2000:]
    assert len(results) == PASSED
