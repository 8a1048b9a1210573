"""The examples of the pages run against a server and print what the pages show."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.agents.config.agents_file import BUILT_IN, read
from app.agents.tools.function_tool import FunctionTool
from app.agents.tools.registry import find_tool
from app.base.code_loader import load
from tests.documents.samples import pdf
from tests.journeys.conftest import Served

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_sdk_example_of_the_readme_runs_as_written(served: Served, tmp_path: Path) -> None:
    (example,) = blocks("README.md", "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    script = tmp_path / "example.py"
    script.write_text(example.replace("http://127.0.0.1:8000/api/v1", served.base))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "metadata 1-1"
    assert "5" in lines[-1]


def test_the_curl_of_the_readme_streams_what_it_shows(served: Served) -> None:
    command = next(block for block in blocks("README.md", "console") if "curl" in block).removeprefix("$ ")
    command = command.replace("http://127.0.0.1:8000/api/v1", served.base)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    shown = next(block for block in blocks("README.md", "text") if "event: metadata" in block)
    assert re.findall(r"event: \w+|id: \S+", done.stdout) == re.findall(r"event: \w+|id: \S+", shown)
    assert "The tool calculator answered: 84" in done.stdout


def test_the_agents_files_of_the_pages_load(tmp_path: Path) -> None:
    (started,) = blocks("docs/tutorial/getting-started.md", "toml")
    (whole,) = blocks("docs/how-to/agents.md", "toml")
    (function,) = blocks("docs/tutorial/getting-started.md", "python")
    (tmp_path / "tools.py").write_text(function)
    (long,) = blocks("docs/how-to/long-threads.md", "toml")
    for text in (started, whole, long):
        file = tmp_path / "agents.toml"
        file.write_text(text)
        assert set(read(str(file)).agents) >= set(BUILT_IN)
    assert FunctionTool(load("./tools.py:find_order", tmp_path)).spec.parameters["required"] == ["number"]


@pytest.mark.parametrize(
    "page, printed",
    [
        ("docs/how-to/documents.md", "Boats 0 0 84 # Boats\n\nA sloop"),
        ("docs/how-to/store.md", "['allergic to peanuts']\n"),
    ],
)
def test_the_example_of_a_page_runs_as_written(served: Served, tmp_path: Path, page: str, printed: str) -> None:
    (example,) = blocks(page, "python")
    script = tmp_path / "example.py"
    script.write_text(example.replace("http://127.0.0.1:8000/api/v1", served.base))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(printed)


def test_the_curl_of_the_page_on_documents_uploads_a_pdf(served: Served, tmp_path: Path) -> None:
    (tmp_path / "handbook.pdf").write_bytes(pdf(["The handbook."]))
    (command,) = blocks("docs/how-to/documents.md", "console")
    command = command.removeprefix("$ ").replace("http://127.0.0.1:8000/api/v1", served.base)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    document = json.loads(done.stdout)
    assert (document["filename"], document["collection"]) == ("handbook.pdf", "handbook")


def test_the_documented_agents_file_names_existing_tools(tmp_path: Path) -> None:
    (text,) = blocks("docs/how-to/documents.md", "toml")
    file = tmp_path / "agents.toml"
    file.write_text(text)
    agents = read(str(file)).agents
    tools = [find_tool(agents[name].tools[0], tmp_path, load).spec.name for name in ("librarian", "clerk")]
    assert tools == ["knowledge", "knowledge_handbook"]


def test_the_documented_tool_has_the_described_schema(tmp_path: Path) -> None:
    (example,) = blocks("docs/how-to/agents.md", "python")
    (tmp_path / "orders.py").write_text(example)
    spec = FunctionTool(load("orders.py:search_orders", tmp_path)).spec
    assert spec.description == "Find a customer's orders."
    assert spec.parameters["properties"]["state"] == {
        "description": "which orders to find",
        "enum": ["open", "sent"],
        "default": "open",
    }
