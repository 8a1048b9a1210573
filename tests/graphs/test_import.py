"""``agent-service import langgraph-postgres``: threads, histories and items move in, and go on here."""

import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_sdk.client import LangGraphClient

from app.cli.langgraph_import.threads import new_thread_id
from app.security.access.structs import DEFAULT_TENANT, tenant_id_of
from tests.cli.commands import run_command
from tests.database import at, drop, execute
from tests.graphs.conftest import PROJECT
from tests.graphs.langgraph_tables import fill
from tests.journeys.conftest import Served, contents

pytestmark = pytest.mark.timeout(150)

CHAT, TYPED, NESTED, DELTA = (str(uuid4()) for _ in range(4))
ITEMS = {("users.ada", "name"): {"is": "Ada"}, ("users.ada", "likes"): {"n": [1, 2.5, None]}, ("facts", "é"): {}}


def said_by_user(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture
def saver(monkeypatch: pytest.MonkeyPatch) -> InMemorySaver:
    """What a project has stored with LangGraph alone: the same graphs, run here."""
    monkeypatch.syspath_prepend(str(PROJECT))
    monkeypatch.setenv("GREETING", "hello")
    saver, own, other = InMemorySaver(), importlib.import_module("graphs"), importlib.import_module("conformance")

    def run(graph: Any, thread: str, given: Any, **configurable: str) -> None:
        graph = graph.copy(update={"checkpointer": saver})
        graph.invoke(given, {"configurable": {"thread_id": thread, **configurable}, "metadata": configurable})

    for text in ("one", "two", "three"):
        run(own.chat, CHAT, said_by_user(text), graph_id="chat")
    run(own.review, "ticket 7", {}, graph_id="review")
    run(own.nested, NESTED, {}, graph_id="nested")
    run(own.typed, TYPED, {"note": "n"}, graph_id="typed")
    for _ in range(3):
        run(other.delta, DELTA, {})
    return saver


@pytest.fixture
async def tables(server_url: str, saver: InMemorySaver) -> AsyncIterator[str]:
    """A database of LangGraph."""
    name = f"langgraph_{uuid4().hex[:12]}"
    await execute(server_url, f"create database {name}")
    await fill(at(server_url, name), saver, ITEMS)
    yield at(server_url, name)
    await drop(server_url, at(server_url, name))


def bring(hosted: Served, folder: Path, *words: str) -> tuple[int, str]:
    done = run_command(folder, "import", "langgraph-postgres", *words, **hosted.environment)
    return done.returncode, done.stderr


def ran_nodes(hosted: Served, thread: str) -> list[str]:
    effects = Path(hosted.environment["EFFECTS"]).read_text()
    return [line.split()[-1] for line in effects.splitlines() if line.startswith(thread)]


async def test_threads_and_items_of_langgraphs_tables_move_in_and_go_on(
    client: LangGraphClient, hosted: Served, tables: str, saver: InMemorySaver, tmp_path: Path
) -> None:
    code, said = bring(hosted, tmp_path, tables)
    assert code == 1
    assert f"thread {DELTA}: its checkpoints name no graph: name one with --graph" in said
    assert "threads: 4 imported" in said
    assert "items: 3 imported, 0 were there, 0 refused; 3 read again and equal, 0 have another value here" in said
    code, said = bring(hosted, tmp_path, tables, "--graph", "delta")
    assert code == 0, said
    assert "threads: 1 imported" in said
    assert "4 were there, 0 refused" in said
    assert "items: 0 imported, 3 were there" in said

    state: Any = await client.threads.get_state(CHAT)
    assert contents(state["values"]) == ["one", "echo: one", "two", "echo: two", "three", "echo: three"]
    assert state["next"] == []
    states: Any = await client.threads.get_history(CHAT, limit=50)
    history = states[:-1]  # the last is before the first input
    theirs: Any = list(saver.list({"configurable": {"thread_id": CHAT, "checkpoint_ns": ""}}))
    assert [len(one["values"].get("messages", ())) for one in history] == [
        len(one.checkpoint["channel_values"].get("messages", ())) for one in theirs
    ]
    assert [one["metadata"]["step"] for one in history] == [one.metadata["step"] for one in theirs]
    moved = str(uuid4())
    superstep: Any = {"updates": [{"values": state["values"], "as_node": "say"}]}
    await client.threads.create(thread_id=moved, graph_id="chat", metadata={"of": "a"}, supersteps=[superstep])
    again: Any = await client.threads.get_state(moved)
    assert (again["next"], contents(again["values"])) == ([], contents(state["values"])), "as the guide moves a state"
    values: Any = await client.runs.wait(CHAT, "chat", input=said_by_user("four"))
    assert contents(values)[-2:] == ["four", "echo: four"]
    branch: Any = await client.runs.wait(
        *(CHAT, "chat"),
        input=said_by_user("else"),
        checkpoint_id=history[3]["checkpoint"]["checkpoint_id"],
    )
    assert contents(branch) == ["one", "echo: one", "two", "echo: two", "else", "echo: else"]
    values = await client.runs.wait(TYPED, "typed", input={})
    assert [one["number"] for one in values["seen"]] == [1, 2], "read by their type"
    values = await client.runs.wait(DELTA, "delta", input={})
    assert values["lines"] == ["line 0", "line 1", "line 2", "line 3"]

    named = str(new_thread_id(DEFAULT_TENANT, "ticket 7"))
    thread: Any = await client.threads.get(named)
    assert thread["metadata"] == {"graph_id": "review", "langgraph_thread_id": "ticket 7"}
    for waiting, graph in ((named, "review"), (NESTED, "nested")):
        asked: Any = await client.runs.wait(waiting, graph, input=None)
        assert [one["value"]["question"] for one in asked["__interrupt__"]] == ["publish?"]
        values = await client.runs.wait(waiting, graph, command={"resume": "yes"})
        assert values["text"] == "draft published: yes"
        assert ran_nodes(hosted, waiting) == ["ask", "ask", "publish"], "what had finished before does not run again"
    found: Any = await client.store.search_items(("users", "ada"))
    assert {one["key"]: one["value"] for one in found["items"]} == {
        "name": {"is": "Ada"},
        "likes": {"n": [1, 2.5, None]},
    }


async def test_a_thread_is_imported_as_a_whole_or_not_at_all(hosted: Served, tables: str, tmp_path: Path) -> None:
    await execute(
        tables,
        f"delete from checkpoints where thread_id not in ('{CHAT}', '{TYPED}')",
        f"""update checkpoints set metadata = metadata || '{{"graph_id": "chat"}}' where thread_id = '{TYPED}'""",
        f"""update checkpoint_blobs set blob = '\\xc1' where thread_id = '{CHAT}' and channel = 'messages'
          and version = (select max(version) from checkpoint_blobs where thread_id = '{CHAT}')""",
    )
    code, said = bring(hosted, tmp_path, tables, "--only", "threads", "--tenant", "torn")
    assert code == 1
    assert f"thread {CHAT}: " in said
    assert f"thread {TYPED}: CannotStore: A value has type graphs.Order, which would not be read" in said
    assert "threads: 0 imported with 0 checkpoints, read again and equal; 0 were there, 2 refused" in said
    connection = await asyncpg.connect(hosted.environment["DATABASE_URL"])
    try:
        sql = "select count(*) from threads where tenant_id = $1"
        assert await connection.fetchval(sql, tenant_id_of("torn")) == 0
    finally:
        await connection.close()
