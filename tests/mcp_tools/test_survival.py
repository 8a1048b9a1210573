"""A task of an MCP server outlives the process that started it: another one follows it, and calls nothing again."""

import asyncio
from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.mcp_tools.conftest import serving_http
from tests.mcp_tools.task_server import TaskServer
from tests.waiting import eventually

AGENTS = """
[mcp.fix]
url = "{url}"

[agents.builder]
model = "scripted:demo"
tools = ["mcp:fix/build"]
"""


async def test_a_task_survives_the_death_of_every_process_of_ours(server_url: str, tmp_path: Path) -> None:
    tasks = TaskServer()
    url = await clone(server_url)
    with serving_http(tasks.app) as base:
        (tmp_path / "agents.toml").write_text(AGENTS.format(url=f"{base}/mcp"), encoding="utf-8")
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
            await eventually(lambda: ("tasks/get", "task-1") in tasks.requests)
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
        finally:
            await asyncio.to_thread(second.stop)
    assert len(tasks.calls) == 1
    await drop(server_url, url)
