"""What ``langgraph.json`` and ``agents.toml`` say about graphs."""

import json
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from app.agents.config.agents_file import AgentsFile, read
from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.store import GraphStore
from app.agents.testing import FakeRunContext
from app.base.errors import StartError
from app.server.composition.models import graph_worker
from tests.cli.commands import run_command
from tests.graphs.test_recovery import NoStore


def given(folder: Path, **document: Any) -> AgentsFile:
    file = folder / "langgraph.json"
    file.write_text(json.dumps(document))
    return read(str(file))


def test_a_langgraph_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / ".env").write_text("KEY=value\n")
    file = given(
        tmp_path,
        dependencies=[".", "langchain_openai"],
        graphs={"a": "./a.py:graph", "b": {"path": "./b.py:make", "description": "does b"}},
        env=".env",
        python_version="3.12",
        store={"index": {"fields": ["text"]}, "ttl": {"default_ttl": 60, "refresh_on_read": False}},
        auth={"path": "./auth.py:auth"},
    )
    assert {name: spec.graph for name, spec in file.agents.items() if spec.graph} == {
        "a": "./a.py:graph",
        "b": "./b.py:make",
    }
    assert file.agents["b"].description == "does b"
    assert file.graphs.environment(tmp_path) == {"KEY": "value"}
    assert file.graphs.paths(tmp_path) == (str(tmp_path), str(tmp_path / "src"))
    assert (file.store.ttl, file.store.refresh_on_read, file.store.index[0].fields) == (60, False, ["text"])
    assert file.auth is not None


@pytest.mark.parametrize(
    "document,words",
    [
        ({"graph": {}}, "unknown key 'graph'"),
        ({"graphs": {"a b": "./a.py:g"}}, "graph 'a b': a name has letters"),
        ({"graphs": {"a": 1}}, "Expected `object`, got `int`"),
        ({"graphs": {}, "http": {"app": "./web.py:app"}}, "http.app is not served: run that application beside"),
        ({"graphs": {}, "checkpointer": {"path": "./c.py:c"}}, "checkpointer.path is not supported"),
        ({"graphs": {}, "store": {"index": {"embed": "./e.py:embed", "dims": 3}}}, "Functions of the project and"),
        ({"graphs": {}, "store": {"index": {"embed": "cohere:embed-v4"}}}, "use hashing, minilm, openai:MODEL or none"),
    ],
)
def test_a_langgraph_file_that_cannot_be_served_says_why(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(StartError) as refused:
        given(tmp_path, **document)
    assert str(tmp_path) in str(refused.value)
    assert words in str(refused.value)


def test_an_agents_file_names_graphs_and_the_python_that_runs_them(tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text('[graphs]\npython = "./.venv/bin/python"\n[agents.support]\ngraph = "./support.py:graph"\n')
    found = read(str(file))
    assert found.agents["support"].graph == "./support.py:graph"
    assert found.graphs.interpreter(tmp_path) == str(tmp_path / ".venv/bin/python")
    file.write_text('[agents.support]\ngraph = "./support.py:graph"\nmodel = "openai:gpt-5"\n')
    with pytest.raises(StartError, match="model does not apply to a graph"):
        read(str(file))


def test_what_a_langgraph_file_configures_without_effect_is_named_with_what_to_set(tmp_path: Path) -> None:
    file = given(
        tmp_path,
        graphs={},
        auth={"path": "./auth.py:auth", "cache": {"ttl_seconds": 5}},
        checkpointer={"ttl": {"strategy": "delete", "default_ttl": 43200}},
        http={
            "cors": {"allow_origins": ["*"]},
            "configurable_headers": {"includes": ["x-user"]},
            "disable_store": True,
        },
        webhooks={"headers": {"x-key": "${KEY}"}},
        pip_installer="uv",
    )
    named = {sentence.split()[0]: sentence for sentence in file.ignored}
    for key, does in {
        "auth.cache": "for each request",
        "checkpointer.ttl": "AGENT_KEEP_THREADS_DAYS",
        "http.cors": "AGENT_CORS_ORIGINS",
        "http.configurable_headers": "no header reaches",
        "http.disable_store": "refuse them in the auth handlers",
        "webhooks": "AGENT_WEBHOOK_SECRET",
    }.items():
        assert does in named.pop(key)
    assert not named
    assert given(tmp_path, graphs={}, http={"disable_store": False, "cors": None}).ignored == ()


@pytest.mark.timeout(100)
def test_agents_check_takes_the_file_and_names_one_that_is_not_read(tmp_path: Path) -> None:
    given(tmp_path, graphs={"absent": "./absent.py:graph"}, http={"cors": {"allow_origins": ["*"]}})
    named = run_command(tmp_path, "agents", "check", "langgraph.json")
    assert (named.returncode, "failed  absent: langgraph.json: there is no file" in named.stdout) == (1, True)
    assert "ignored http.cors of langgraph.json: browsers of AGENT_CORS_ORIGINS may read responses" in named.stderr
    unnamed = run_command(tmp_path, "agents", "check")
    assert unnamed.returncode == 0
    assert "ignored this folder has a langgraph.json, which is read where it is named: " in unnamed.stderr


@pytest.mark.timeout(100)
async def test_graphs_run_in_the_projects_own_interpreter(tmp_path: Path) -> None:
    """A virtual environment with packages of its own, here those of the tests."""
    venv.create(tmp_path / ".venv", symlinks=True)
    (packages,) = (tmp_path / ".venv" / "lib").glob("python*/site-packages")
    (packages / "of_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "where.py").write_text(
        "import sys\nfrom typing import TypedDict\nfrom langgraph.graph import START, StateGraph\n"
        "class Where(TypedDict, total=False):\n    prefix: str\n"
        "graph = StateGraph(Where).add_node('look', lambda _: {'prefix': sys.prefix})\n"
        "graph = graph.add_edge(START, 'look').compile()\n"
    )
    (tmp_path / "agents.toml").write_text(
        '[graphs]\npython = "./.venv/bin/python"\n[agents.where]\ngraph = "./where.py:graph"\n'
    )
    worker = graph_worker(read(str(tmp_path / "agents.toml")))
    assert worker is not None
    worker.start()
    try:
        await worker.wait()
        context = FakeRunContext()
        await context.play(GraphAgent("where", worker, GraphStore(NoStore(), NoStore()), seconds=60), {})
        assert context.state.get("prefix") == str(tmp_path / ".venv")
    finally:
        await worker.aclose()


@pytest.mark.timeout(100)
def test_a_strict_server_refuses_to_start_with_a_broken_graph(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("import nothing_of_this_name\n")
    given(tmp_path, graphs={"wrong": "./wrong.py:graph", "absent": "./absent.py:graph"})
    settings = {"DATABASE_URL": "postgresql://agent@127.0.0.1:1/agents", "AGENT_AUTH": "none"}
    done = run_command(tmp_path, "serve", "langgraph.json", "--strict", **settings)
    assert done.returncode == 1
    assert "the graph 'wrong' cannot be used: ./wrong.py cannot be imported: ModuleNotFoundError" in done.stderr
    assert "the graph 'absent' cannot be used: there is no file" in done.stderr
