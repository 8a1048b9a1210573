"""An upgrade from the previous version: waiting runs continue, and both versions share a database in a roll-out."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from app.infra.db.migrations import upgrade
from tests.database import create, drop
from tests.journeys.conftest import Served

ROOT = Path(__file__).parents[2]

VERSION_BEFORE = "8b396f3"
"""The commit to upgrade from; its program is taken from the repository's history."""

AGENTS = """
[agents.careful]
model = "scripted:demo"
tools = ["calculator"]
approve = { tools = ["calculator"] }

[agents.curious]
model = "scripted:demo"
tools = ["./code.py:notes"]

[agents.clerk]
function = "./code.py:clerk"

[agents.walker]
function = "./code.py:walker"
"""

CODE = '''
import asyncio
from pathlib import Path

from app.agents.function import Context
from app.tools import ToolContext

LEDGER = Path(__file__).with_name("ledger")


def note(line: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(line + "\\n")


async def notes(action: str, context: ToolContext, text: str = "") -> str:
    """Note something after a person has said where and when."""
    where = context.interrupt({"question": "where?"})
    when = context.interrupt({"question": "when?"})
    return f"{action} {text} {where} {when}"


async def clerk(context: Context) -> str:
    """Do something, ask, then return the answer."""

    async def prepare() -> str:
        note(f"prepare {context.run.thread_id}")
        return "prepared"

    done = await context.step("prepare", prepare)
    answer = await context.interrupt("continue?", str)
    return f"{done}, {answer}"


async def walker(context: Context) -> str:
    """Many short steps, so that a run is in progress whenever its server stops."""
    for number in range(25):

        async def walk(number: int = number) -> int:
            await asyncio.sleep(0.1)
            return number

        await context.step(f"walk-{number}", walk)
    return "arrived"
'''


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the previous version."""
    folder = tmp_path_factory.mktemp("before")
    wanted = ["app", "migrations", "alembic.ini"]
    archive = subprocess.run(["git", "archive", VERSION_BEFORE, *wanted], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"NO COMMIT {VERSION_BEFORE} HERE: a clone with its history is needed to try an upgrade")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "agents.toml").write_text(AGENTS)
    return tmp_path


class Roll:
    """A database with servers of both versions."""

    def __init__(self, url: str, folder: Path, before: Path) -> None:
        self.url, self.folder, self.before = url, folder, before
        self.servers: list[Served] = []
        environment = {**os.environ, "DATABASE_URL": self.url}
        words = [sys.executable, "-m", "app", "migrate"]
        done = subprocess.run(words, cwd=before, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    async def migrate(self) -> None:
        """Migrate the database to the newest revision."""
        await asyncio.to_thread(upgrade, self.url)

    def served(self, source: Path | None) -> Served:
        settings = {"AGENT_CONFIG": str(self.folder / "agents.toml"), "AGENT_LEASE_SECONDS": "5"}
        version = type("Version", (Served,), {"source": source})
        server: Served = version(self.url, self.folder, **settings)
        server.wait_until_ready()
        self.servers.append(server)
        return server

    def old(self) -> Served:
        return self.served(self.before)

    def new(self) -> Served:
        return self.served(None)

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        for server in self.servers:
            server.process.kill()
            server.process.wait(10)


@pytest.fixture
def roll(server_url: str, agents: Path, before: Path) -> Iterator[Roll]:
    url = asyncio.run(create(server_url))
    roll = Roll(url, agents, before)
    yield roll
    roll.end()
    asyncio.run(drop(server_url, url))


async def begun(client: LangGraphClient, agent: str, text: str, **more: Any) -> tuple[str, list[Any]]:
    thread_id = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread_id, agent, input={"messages": text}, **more)
    return thread_id, values.get("__interrupt__", [])


async def answered(client: LangGraphClient, thread_id: str, agent: str, resume: Any) -> Any:
    return await client.runs.wait(thread_id, agent, command={"resume": resume})


def last(values: Any) -> str:
    return str(values["messages"][-1]["content"])


@pytest.mark.timeout(180)
async def test_an_upgrade_a_roll_and_a_rollback_lose_nothing(roll: Roll) -> None:
    """One database: questions of the previous version, both versions side by side, hand-over in both directions."""
    old = roll.old()
    async with get_client(url=old.base) as client:
        asked_before = await questions_are_asked(client)
    await roll.migrate()
    new = roll.new()
    async with get_client(url=old.base) as at_old, get_client(url=new.base) as at_new:
        await questions_are_answered(at_new, asked_before)
        assert roll.ledger() == [f"prepare {asked_before['clerk'][0]}"]
        await asyncio.gather(each_continues_the_other(at_old, at_new), each_continues_the_other(at_new, at_old))
    assert [line for line in roll.ledger() if roll.ledger().count(line) > 1] == []
    async with httpx.AsyncClient() as http:
        for server in (old, new):
            assert (await http.get(f"{server.base}/health")).json()["status"] == "healthy"
    await a_run_is_handed_over(old, new)
    await a_run_is_handed_over(new, roll.old())


async def questions_are_asked(client: LangGraphClient) -> dict[str, tuple[str, list[Any]]]:
    """Leave one thread for each kind of question; return its id and question."""
    curious, (first,) = await begun(client, "curious", "note buy milk")
    assert first["value"]["question"] == "where?"
    second: Any = await answered(client, curious, "curious", "kitchen")
    assert second["__interrupt__"][0]["value"]["question"] == "when?"
    return {
        "careful": await begun(client, "careful", "what is 12*(3+4)?"),
        "curious": (curious, second["__interrupt__"]),
        "clerk": await begun(client, "clerk", "hello"),
        "pause": await begun(client, "careful", "hello", interrupt_before=["agent"]),
    }


async def questions_are_answered(client: LangGraphClient, asked: dict[str, tuple[str, list[Any]]]) -> None:
    approval, (question,) = asked["careful"]
    thread: Any = await client.threads.get(approval)
    ((shown,),) = thread["interrupts"].values()
    assert (shown["id"], thread["status"]) == (question["id"], "interrupted")
    assert "84" in last(await answered(client, approval, "careful", True))
    assert "kitchen noon" in last(await answered(client, asked["curious"][0], "curious", "noon"))
    assert last(await answered(client, asked["clerk"][0], "clerk", "yes")) == "prepared, yes"
    paused: Any = await client.runs.wait(asked["pause"][0], "careful", input=None)
    assert "__interrupt__" not in paused
    assert paused["messages"][-1]["type"] == "ai"


async def each_continues_the_other(here: LangGraphClient, there: LangGraphClient) -> None:
    """Threads, runs, questions and answers move between versions; each continues what the other began."""
    thread_id, (_,) = await begun(here, "careful", "what is 12*(3+4)?")
    assert "84" in last(await answered(there, thread_id, "careful", {"action": "approve"}))
    values = await here.runs.wait(thread_id, "careful", input={"messages": "hello"})
    seen_there: Any = await there.threads.get_state(thread_id)
    assert values == seen_there["values"]
    function, _ = await begun(there, "clerk", "hello")
    assert last(await answered(here, function, "clerk", "yes")) == "prepared, yes"


async def a_run_is_handed_over(leaving: Served, staying: Served) -> None:
    """As in a roll-out or rollback: the other version ends the run, and its stream is complete."""
    async with get_client(url=leaving.base) as client:
        thread_id = (await client.threads.create())["thread_id"]
        run = await client.runs.create(thread_id, "walker", input={"messages": "go"}, stream_mode=["updates"])
        async for part in client.runs.join_stream(thread_id, run["run_id"]):
            if part.event == "updates":
                break  # it has committed a step
    assert await asyncio.to_thread(leaving.stop) == 0
    async with get_client(url=staying.base) as client:
        values: Any = await client.runs.join(thread_id, run["run_id"])
        assert last(values) == "arrived"
        events = [part async for part in replay(client, thread_id, run["run_id"])]
        assert [event.event for event in events][-1] == "end"
        assert len({event.id for event in events}) == len(events)


async def replay(client: LangGraphClient, thread_id: str, run_id: str) -> AsyncIterator[Any]:
    async for part in client.runs.join_stream(thread_id, run_id, last_event_id="-1"):
        yield part
