"""The key ``memory`` of an agent: what is refused, in one line that says what is wrong."""

from pathlib import Path

import pytest

from app.agents.catalog import Catalog
from app.agents.config import read
from app.agents.toolloop.agent import Manner, ToolLoop
from app.agents.toolloop.calls import Toolbox
from app.agents.toolloop.memory import Memory, MemorySpec
from app.base.errors import StartError, UsageError
from app.llm.registry import Registry
from app.llm.scripted import EchoModel
from app.options import LlmSettings
from app.telemetry.meters import Meters
from app.telemetry.tools import ToolCalls
from app.telemetry.tracing import NO_TRACER


@pytest.mark.parametrize(
    "line, words",
    [
        ("memory = { tokens = 8_000, kep = 6 }", "kep"),
        ("memory = { tokens = 10 }", "memory.tokens"),
        ("memory = { keep = 6 }", "tokens"),
        ('memory = { tokens = 8_000, model = "nobody:x" }', "nobody"),
        ('memory = { tokens = 8_000 }\nfunction = "./f.py:run"', "function agent"),
    ],
)
def test_a_mistake_in_the_file_is_told(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "f.py").write_text("async def run(context): return 'x'\n")
    file = tmp_path / "agents.toml"
    file.write_text(f'[agents.a]\nmodel = "scripted:echo"\n{line}\n')
    with pytest.raises(StartError, match=words):
        Catalog(read(str(file)), Registry(LlmSettings(), Meters()).model, ToolCalls(Meters(), NO_TRACER))


def test_a_budget_that_instructions_and_tools_fill_is_refused() -> None:
    memory = Memory(MemorySpec(tokens=400), EchoModel())
    with pytest.raises(UsageError, match=r"memory\.tokens must be at least 5"):
        ToolLoop("test", EchoModel(), Toolbox([], lambda *_: None), Manner(instructions="x" * 1_000), memory=memory)
