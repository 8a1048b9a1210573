"""The examples run against a server and print what their pages show."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.database import clone, drop
from tests.journeys.conftest import Served

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
ANN: Any = {"messages": "Ann"}
EVERY_MODE: Any = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"]
SHOWN_AT = "http://127.0.0.1:8000/api/v1"


def blocks(example: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (EXAMPLES / example / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def all_examples(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """A server for each example, with its agents file."""
    url = asyncio.run(clone(server_url))
    folder = tmp_path_factory.mktemp("examples")
    servers: dict[str, Served] = {}
    try:
        for example in ("greeter", "support", "research"):
            server = Served(url, folder, AGENT_CONFIG=str(EXAMPLES / example / "agents.toml"))
            servers[example] = server
            server.wait_until_ready()
        yield servers
    finally:
        for server in servers.values():
            server.stop()
        asyncio.run(drop(server_url, url))


def ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shown(example: str, place: int, server: Served) -> tuple[str, str]:
    """Return the output of the page's program and the documented output."""
    program = blocks(example, "python")[place].replace(SHOWN_AT, server.base)
    return ran(sys.executable, "-c", program), blocks(example, "text")[place]


@pytest.mark.parametrize("example", ["greeter", "support", "research"])
def test_the_documented_check_passes_for_its_agent(example: str) -> None:
    check, serve = blocks(example, "console")[0].splitlines()
    arguments = check.removeprefix("$ agent-service ").split()
    assert re.search(rf"^ok +{example}$", ran(sys.executable, "-m", "app", *arguments), re.MULTILINE)
    assert serve == f"$ agent-service dev --agents docs/examples/{example}/agents.toml"


def test_the_greeter_streams_and_remembers(all_examples: dict[str, Served]) -> None:
    printed, said = shown("greeter", 0, all_examples["greeter"])
    assert printed == said


def test_the_support_agent_asks_before_it_refunds(all_examples: dict[str, Served]) -> None:
    printed, said = shown("support", 0, all_examples["support"])
    assert printed == said


def test_the_support_agent_continues_with_a_persons_decision(all_examples: dict[str, Served]) -> None:
    printed, said = shown("support", 1, all_examples["support"])
    assert printed == said


def test_the_support_agent_refuses_an_invalid_input(all_examples: dict[str, Served]) -> None:
    server = all_examples["support"]
    command = blocks("support", "console")[1].removeprefix("$ ").replace(SHOWN_AT, server.base)
    problem = ran("bash", "-c", command)
    (says,) = blocks("support", "json")
    assert re.sub(r"\s", "", says) in re.sub(r"\s", "", problem)


def test_the_research_agent_searches_in_parallel_and_reports_progress(all_examples: dict[str, Served]) -> None:
    printed, said = shown("research", 0, all_examples["research"])
    assert printed == said


@pytest.fixture
def support(all_examples: dict[str, Served]) -> LangGraphClient:
    return get_client(url=all_examples["support"].base)


async def test_values_written_with_an_answer_do_not_restart_the_work(support: LangGraphClient) -> None:
    async with support as client:
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, "support", input={"order": "17", "reason": "late"})
        command: Any = {"resume": {"action": "approve"}, "update": {"seen_by": "Cleo"}}
        values: Any = await client.runs.wait(thread_id, "support", command=command)
        assert (values["seen_by"], values["refunds"]) == ("Cleo", ["17"])


async def test_a_function_pauses_where_its_caller_requests(all_examples: dict[str, Served]) -> None:
    async with get_client(url=all_examples["greeter"].base) as client:
        thread_id = (await client.threads.create())["thread_id"]
        paused: Any = await client.runs.wait(thread_id, "greeter", input=ANN, interrupt_after=["run"])
        assert len(paused["messages"]) == 1
        assert (await client.threads.get_state(thread_id))["next"] == ["run"]
        values: Any = await client.runs.wait(thread_id, "greeter", input=None)
        assert values["messages"][1]["content"] == "echo: Greet Ann, whom you meet for time 1."
        assert values["memory"] == {"met": 1}


async def test_an_approval_is_answered_through_the_sdk_and_seen_everywhere(support: LangGraphClient) -> None:
    async with support as client:
        thread_id = (await client.threads.create())["thread_id"]
        parts = [
            part
            async for part in client.runs.stream(
                thread_id, "support", input={"order": "18", "reason": "late"}, stream_mode=EVERY_MODE
            )
        ]
        assert not [part for part in parts if "__journal" in str(part.data)]
        (interrupt,) = next(p.data["__interrupt__"] for p in parts if p.event == "values" and "__interrupt__" in p.data)
        state = await client.threads.get_state(thread_id)
        assert state["next"] == ["run"]
        assert [task["interrupts"][0]["id"] for task in state["tasks"]] == [interrupt["id"]]
        assert list(state["values"]) == ["order"]
        values = await client.runs.wait(
            thread_id, "support", command={"resume": {interrupt["id"]: {"action": "approve"}}}
        )
        assert isinstance(values, dict)
        assert values["refunds"] == ["18"]
        history = await client.threads.get_history(thread_id)
        assert [entry["next"] for entry in history] == [[], *[["run"]] * (len(history) - 2), ["__start__"]]
        assert "__" not in str([entry["values"] for entry in history])
