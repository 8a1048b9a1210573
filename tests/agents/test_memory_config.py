"""The key ``memory`` of an agent: validation with one-line errors."""

from pathlib import Path

import pytest

from app.agents.catalog import AgentCatalog, ToolServices
from app.agents.config.agents_file import read
from app.agents.tool_loop.agent import ToolLoop, ToolLoopConfig
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation_window import MemorySpec, SummaryMemory
from app.base.errors import StartError, UsageError
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import NO_TRACER
from app.providers.llm.registry import ModelRegistry
from app.providers.llm.scripted import EchoModel


@pytest.mark.parametrize(
    "line, words",
    [
        ("memory = { tokens = 8_000, kep = 6 }", "kep"),
        ("memory = { tokens = 10 }", "memory.tokens"),
        ("memory = { keep = 6 }", "tokens"),
        ('memory = { tokens = 8_000, model = "nowhere:x" }', "nowhere"),
        ('memory = { tokens = 8_000 }\nfunction = "./f.py:run"', "function agent"),
    ],
)
def test_an_invalid_memory_table_is_reported(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "f.py").write_text("async def run(context): return 'x'\n")
    file = tmp_path / "agents.toml"
    file.write_text(f'[agents.a]\nmodel = "scripted:echo"\n{line}\n')
    with pytest.raises(StartError, match=words):
        AgentCatalog(
            read(str(file)),
            ModelRegistry(LlmSettings(), Meters()).model,
            ToolServices(ToolCallRecorder(Meters(), NO_TRACER)),
        )


def test_a_budget_that_instructions_and_tools_fill_is_refused() -> None:
    memory = SummaryMemory(MemorySpec(tokens=400), EchoModel())
    with pytest.raises(UsageError, match=r"memory\.tokens must be at least 5"):
        ToolLoop(
            "test", EchoModel(), Toolbox([], lambda *_: None), ToolLoopConfig(instructions="x" * 1_000), memory=memory
        )
