"""The death of a process of ours between a call of an MCP server and its answer: nothing is called again.

A task outlives the process, and another one follows it; about any other call of an unsafe tool a person is asked.
"""

import asyncio
from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.mcp_tools import server as fixture
from tests.mcp_tools.conftest import serving_http
from tests.mcp_tools.task_server import TaskServer
from tests.waiting import eventually

AGENTS = """
[mcp.fix]
url = "{url}"

[mcp.plain]
url = "{plain}"

[agents.builder]
model = "scripted:demo"
tools = ["mcp:fix/build"]

[agents.caller]
model = "scripted:demo"
tools = ["mcp:plain/hang"]
"""


async def test_a_task_survives_the_death_of_every_process_of_ours_and_other_calls_are_asked_about(
    server_url: str, http_url: str, tmp_path: Path
) -> None:
    tasks = TaskServer()
    fixture.hanging.clear()
    url = await clone(server_url)
    with serving_http(tasks.app) as base:
        (tmp_path / "agents.toml").write_text(AGENTS.format(url=f"{base}/mcp", plain=http_url), encoding="utf-8")
        settings = {
            "AGENT_CONFIG": str(tmp_path / "agents.toml"),
            "AGENT_EGRESS_ALLOW": "127.0.0.1",
            "AGENT_LEASE_SECONDS": "3",
        }
        first = Served(url, tmp_path, **settings)
        await asyncio.to_thread(first.wait_until_ready)
        async with get_client(url=first.base) as client:
            thread = (await client.threads.create())["thread_id"]
            text: Any = "call fix__build"
            await client.runs.create(thread, "builder", input=text)
            other = (await client.threads.create())["thread_id"]
            text = "call plain__hang"
            await client.runs.create(other, "caller", input=text)
            await eventually(lambda: ("tasks/get", "task-1") in tasks.requests and fixture.hanging)
        first.process.kill()
        await asyncio.to_thread(first.process.wait, 20)
        second = Served(url, tmp_path, **settings)
        try:
            await asyncio.to_thread(second.wait_until_ready)
            tasks.status = "completed"
            async with get_client(url=second.base) as client:
                (run,) = await client.runs.list(thread)
                values = await client.runs.join(thread, run["run_id"])
                assert values["messages"][-2]["content"] == "built by task-1"
                (run,) = await client.runs.list(other)
                (question,) = (await client.runs.join(other, run["run_id"]))["__interrupt__"]
                assert (question["value"]["type"], question["value"]["tool"]) == ("tool_review", "plain__hang")
        finally:
            await asyncio.to_thread(second.stop)
    assert (len(tasks.calls), len(fixture.hanging)) == (1, 1)
    await drop(server_url, url)
