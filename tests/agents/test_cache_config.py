"""The ``cache`` table of an agent: validation, and its effect on that agent's model only."""

from pathlib import Path
from typing import Any

import pytest

from app.agents.catalog import AgentCatalog, ToolServices
from app.agents.config.agents_file import read
from app.base.errors import StartError
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import NO_TRACER
from app.providers.llm.scripted import EchoModel

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str) -> str:
    (folder / "agents.toml").write_text(text)
    return str(folder / "agents.toml")


@pytest.mark.parametrize(
    "given,words",
    [
        ("true", "line 3: agent 'a': cache: expected `object | null`"),
        ("{ ttl = 0 }", "line 3: agent 'a': cache.ttl: expected `float` > 0.0"),
        ("{ ttl = 3_000_000 }", "line 3: agent 'a': cache.ttl: expected `float` <= 2592000.0"),
        ("{ seconds = 5 }", "line 3: agent 'a': cache: object contains unknown field `seconds`"),
    ],
)
def test_an_invalid_cache_table_is_reported_with_its_line(tmp_path: Path, given: str, words: str) -> None:
    with pytest.raises(StartError) as refused:
        read(written(tmp_path, f'[agents.a]\nmodel = "scripted:echo"\ncache = {given}\n'))
    assert words in str(refused.value)


def test_only_an_agent_with_a_cache_table_caches_its_answers(tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []

    def find(name: str, fallback: Any, keep: float = 0) -> EchoModel:
        asked.append((name, keep))
        return EchoModel()

    caches = {"a": "cache = { ttl = 60 }", "b": "", "c": "cache = {}"}
    text = "".join(f'[agents.{name}]\nmodel = "x:{name}"\n{cache}\n' for name, cache in caches.items())
    AgentCatalog(read(written(tmp_path, text)), find, ToolServices(ToolCallRecorder(Meters(), NO_TRACER)))
    kept = {name: keep for name, keep in asked if keep}
    assert kept == {"x:a": 60, "x:c": 3600}
