"""Released packages that build on LangGraph, hosted in an environment of their own: ``deepagents`` and ``langmem``."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from tests.journeys.conftest import contents, serving
from tests.long_form import FULL
from tests.suites.environments import python_with

PACKAGES = ("langgraph==1.2.24", "langchain==1.5.2", "deepagents==0.7.32", "langmem==0.0.30")
GRAPHS = Path(__file__).parent / "memory_and_deep_agents.py"
HELLO: Any = {"messages": [{"role": "user", "content": "hello"}]}

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages"),
    pytest.mark.timeout(900),
]


def test_deep_agents_and_memory_tools_work(server_url: str, tmp_path: Path) -> None:
    python = python_with("langgraph-packages", *PACKAGES)
    shutil.copy(GRAPHS, tmp_path / "graphs.py")
    names = ("deep", "careful", "memory")
    tables = "".join(f'[agents.{name}]\ngraph = "./graphs.py:{name}"\n' for name in names)
    agents = tmp_path / "agents.toml"
    agents.write_text(f'{tables}[graphs]\npython = "{python}"\n')
    with serving(server_url, tmp_path, AGENT_CONFIG=str(agents)) as server:
        server.start_seconds = 180.0  # it imports what the graphs import
        server.wait_until_ready()
        asyncio.run(journeys(server.base))


async def journeys(base: str) -> None:
    async with get_client(url=base) as client:
        thread = (await client.threads.create())["thread_id"]
        parts = [
            part
            async for part in client.runs.stream(
                thread, "deep", input=HELLO, stream_mode=["updates", "values"], stream_subgraphs=True
            )
        ]
        assert any(part.event.startswith("updates|tools:") for part in parts), "the subagent is a subgraph"
        values: Any = (await client.threads.get_state(thread))["values"]
        assert "the last result: be kind" in contents(values)
        assert contents(values)[-1].endswith("a note")
        assert values["files"]["/notes.txt"]["content"] == "a note"

        thread = (await client.threads.create())["thread_id"]
        asked: Any = await client.runs.wait(thread, "careful", input=HELLO)
        (request,) = asked["__interrupt__"][0]["value"]["action_requests"]
        assert request["name"] == "write_file"
        assert not asked.get("files"), "the tool has not run"
        values = await client.runs.wait(thread, "careful", command={"resume": {"decisions": [{"type": "approve"}]}})
        assert values["files"]["/notes.txt"]["content"] == "a note"

        for user in ("ann", "bob"):
            named: Any = {"configurable": {"langgraph_user": user}}
            values = await client.runs.wait(None, "memory", input=HELLO, config=named)
            assert "likes green tea" in contents(values)[-1]
            found = (await client.store.search_items(("memories", user)))["items"]
            assert [item["value"] for item in found] == [{"content": "likes green tea"}]
