"""What ``langgraph.json`` and ``agents.toml`` say about graphs."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.agents.config.agents_file import AgentsFile, read
from app.base.errors import StartError


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
