"""Facts that pages state about their files, beyond what running them shows."""

from pathlib import Path

from app.agents.config.agents_file import BUILT_IN, CacheSpec, read
from app.agents.tools.function_tool import FunctionTool
from app.agents.tools.registry import find_tool
from app.base.code_loader import load
from tests.docs.blocks import ROOT, blocks


def written(page: str, title: str, folder: Path) -> Path:
    """Write a file that a page has once, and return it."""
    (block,) = (block for block in blocks(ROOT / page) if block.title == title)
    (folder / title).write_text(block.text)
    return folder / title


def test_the_sdk_example_of_the_readme_is_short() -> None:
    (example,) = (block for block in blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 12


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_the_tutorials_agent_offers_its_tool(tmp_path: Path) -> None:
    assert set(read(str(written("docs/tutorial/getting-started.md", "agents.toml", tmp_path))).agents) > set(BUILT_IN)
    written("docs/tutorial/getting-started.md", "tools.py", tmp_path)
    assert FunctionTool(load("./tools.py:find_order", tmp_path)).spec.parameters["required"] == ["number"]


def test_the_agents_on_documents_name_existing_tools(tmp_path: Path) -> None:
    agents = read(str(written("docs/how-to/documents.md", "agents.toml", tmp_path))).agents
    tools = [find_tool(agents[name].tools[0], tmp_path, load).spec.name for name in ("librarian", "clerk")]
    assert tools == ["knowledge", "knowledge_handbook"]


def test_the_tool_of_the_page_has_the_described_schema(tmp_path: Path) -> None:
    written("docs/how-to/agents.md", "orders.py", tmp_path)
    spec = FunctionTool(load("orders.py:search_orders", tmp_path)).spec
    assert spec.description == "Find a customer's orders."
    assert spec.parameters["properties"]["state"] == {
        "description": "which orders to find",
        "enum": ["open", "sent"],
        "default": "open",
    }


def test_the_faq_caches_for_an_hour(tmp_path: Path) -> None:
    file = written("docs/how-to/caches.md", "agents.toml", tmp_path)
    assert read(str(file)).agents["faq"].cache == CacheSpec(ttl=3600)
