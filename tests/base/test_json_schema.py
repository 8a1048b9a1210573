"""Schemas from outside: they are compiled without reading what they refer to elsewhere."""

import asyncio
import socket
from pathlib import Path

import pytest

from app.agents.tool_loop.calls import CheckedTool
from app.agents.tools.builtin.clock import clock
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import StartError
from app.base.json_schema import validator_of
from app.engine.execution.questions import OpenQuestion
from app.providers.llm.port import ToolSpec


async def test_a_reference_to_another_host_is_refused_without_a_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/schema.json"
        schema = {"type": "object", "properties": {"a": {"$ref": url}}}
        tool = FunctionTool(clock)
        tool.spec = ToolSpec(name="t", description="", parameters=schema)
        with pytest.raises(StartError, match=r"tool 't': its parameters are not a valid JSON Schema"):
            await asyncio.to_thread(CheckedTool, tool)
        question = OpenQuestion(id="q", key="k", kind="question", expects=schema)
        await asyncio.to_thread(question.check, {"a": 1}, "me", approves=True, at="/x")  # nothing to check it by
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_reference_to_a_file_is_refused_and_one_inside_the_schema_is_followed(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "string"}', encoding="utf-8")
    with pytest.raises(ValueError, match="Retrieval is disabled") as refused:
        validator_of({"$ref": (tmp_path / "s.json").as_uri()})
    assert "\n" not in str(refused.value)
    assert not validator_of({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}).is_valid(1)
