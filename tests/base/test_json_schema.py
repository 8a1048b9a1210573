"""Schemas from outside: they are compiled without reading what they refer to elsewhere."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.agents.tool_loop.calls import CheckedTool
from app.agents.tools.builtin.clock import clock
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import StartError
from app.base.json_schema import MAX_VISITS, JsonSchema
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
    with pytest.raises(ValueError, match="refers to nothing in the schema") as refused:
        JsonSchema({"$ref": (tmp_path / "s.json").as_uri()})
    assert "\n" not in str(refused.value)
    assert JsonSchema({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}).problems(1)


def chain(levels: int, key: str, **more: Any) -> dict[str, Any]:
    """Schemas of which each refers twice to the next one."""
    defs = {f"n{i}": {key: [{"$ref": f"#/$defs/n{i + 1}"}] * 2, **more} for i in range(levels)}
    return {"$ref": "#/$defs/n0", "$defs": {**defs, f"n{levels}": {"type": "integer"}}}


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"x": value}
    return value


TREE = {"anyOf": [{"properties": {"x": {"$ref": "#/$defs/n"}}, "required": [name]} for name in "qr"]}


@pytest.mark.parametrize(
    "schema",
    [
        chain(14, "anyOf"),
        chain(20, "oneOf"),
        chain(20, "allOf"),
        chain(13, "anyOf", unevaluatedProperties=False),
        {**chain(14, "anyOf"), "$id": "http://x.example/a.json", "$ref": "a.json#/$defs/n0"},
        {"$ref": "#a", "$defs": {**chain(14, "anyOf")["$defs"], "a": {"$anchor": "a", "$ref": "#/$defs/n0"}}},
        {"properties": {"p": {"$id": "urn:x", **chain(14, "anyOf")}}},
    ],
)
def test_a_schema_that_takes_too_long_to_check_is_refused(schema: dict[str, Any]) -> None:
    text = msgspec.json.encode(schema)
    began = time.process_time()
    with pytest.raises(ValueError, match="takes too long"):
        JsonSchema(msgspec.json.decode(text))
    assert time.process_time() - began < 0.5


def test_a_value_that_takes_too_long_to_check_does_not_fit() -> None:
    schema = JsonSchema({"$ref": "#/$defs/n", "$defs": {"n": TREE}})
    assert schema.problems(nested(4))[0].message.startswith("{")
    began = time.process_time()
    assert "fit the schema" in schema.problems(nested(10))[0].message
    assert "nested too deeply" in schema.problems(nested(40))[0].message
    assert "too large" in JsonSchema({"items": {"type": "integer"}}).problems([0] * MAX_VISITS)[0].message
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(?=(a|aa)+$)(a+)+\\1$"])
def test_a_pattern_does_not_backtrack_for_long(pattern: str) -> None:
    schema = JsonSchema({"pattern": pattern})
    began = time.process_time()
    assert schema.problems("a" * 5000 + "!")
    assert time.process_time() - began < 0.1


def test_schemas_as_people_write_them_are_used() -> None:
    """Unions that contain themselves, a list of alternatives, references by name, and by the draft of 2013."""
    kinds = [
        {"properties": {"op": {"const": n}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}}
        for n in "+-*/"
    ]
    tree = JsonSchema({"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": [{"type": "number"}, *kinds]}}})
    assert tree.problems({"op": "+", "left": {"op": "*", "left": 1, "right": 2}, "right": 3}) == []
    assert tree.problems({"op": "?"})
    many = JsonSchema(
        {"items": {"oneOf": [{"required": ["k"], "properties": {"k": {"const": n}}} for n in range(100)]}}
    )
    assert many.problems([{"k": 5}] * 50) == []
    drafts4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "http://x.example/s",
        "definitions": {"a": {}},
    }
    assert JsonSchema({**drafts4, "properties": {"p": {"$ref": "#/definitions/a"}}}).problems({"p": 1}) == []


def test_ordinary_patterns_are_taken_and_many_that_are_slow_to_compile_are_not() -> None:
    letters = {"type": "string", "pattern": r"^[\p{L}\p{N} ]{1,100}$"}
    assert JsonSchema(letters).problems("Größe 5") == []
    assert JsonSchema(letters).problems("no!")
    with pytest.raises(ValueError, match="more than 64 patterns"):
        JsonSchema({"properties": {str(number): dict(letters) for number in range(65)}})
