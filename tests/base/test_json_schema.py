"""Schemas from outside: they are compiled without reading what they refer to elsewhere."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from app.agents.port import ModelOptions
from app.agents.tool_loop.checked_tool import CheckedTool
from app.agents.tool_loop.client_tools import check_output
from app.agents.tools.builtin.clock import clock
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import Invalid, ModelProtocol, StartError
from app.base.json_schema import JsonSchema
from app.base.schema_visits import MAX_VISITS, CheckTooExpensive, SchemaVisits, ValueVisits
from app.domain.messages import AIMessage
from app.engine.execution.questions import OpenQuestion
from app.providers.llm.port import OutputSchema, ToolSpec


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
    began = time.thread_time()
    with pytest.raises(ValueError, match="takes too long"):
        JsonSchema(msgspec.json.decode(text))
    assert time.thread_time() - began < 0.5


def ladder(kinds: int, levels: int, key: str) -> dict[str, Any]:
    """Alternatives that nothing tells apart, each with a member of the next level."""
    defs = {
        f"n{i}": {key: [{"properties": {"x": {"$ref": f"#/$defs/n{i + 1}"}}, "minProperties": j} for j in range(kinds)]}
        for i in range(levels)
    }
    return {"$ref": "#/$defs/n0", "$defs": {**defs, f"n{levels}": {"type": "integer"}}}


@pytest.mark.parametrize(
    "schema, value",
    [
        (ladder(4, 40, "anyOf"), nested(40)),
        (ladder(3, 20, "oneOf"), nested(20)),
        (ladder(2, 30, "allOf"), nested(30)),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"oneOf": [{"properties": {"x": {"$ref": "#/$defs/n"}}}] * 3}}},
            nested(30),
        ),
        ({"items": {"type": "integer"}}, [0] * MAX_VISITS),
        ({"items": {"anyOf": [{"type": "object", "minProperties": i} for i in range(20)]}}, [{}] * 50_000),
    ],
)
def test_a_value_that_takes_too_long_to_check_is_an_error_of_its_own(schema: dict[str, Any], value: Any) -> None:
    compiled = JsonSchema(schema)
    began = time.thread_time()
    with pytest.raises(CheckTooExpensive, match="takes too long to check: give a smaller or flatter value"):
        compiled.problems(value)
    assert time.thread_time() - began < 0.2  # a tenth of it alone on the machine


def test_alternatives_that_the_value_contradicts_are_not_entered() -> None:
    schema = JsonSchema({"$ref": "#/$defs/n", "$defs": {"n": TREE}})
    began = time.thread_time()
    assert schema.problems(nested(4))[0].message.startswith("{")
    assert schema.problems(nested(40))
    assert time.thread_time() - began < 0.3


def kinds(count: int, key: str, **more: Any) -> dict[str, Any]:
    """A recursive union as validation libraries write it: each kind named by a constant."""
    sides = {side: {"$ref": "#/$defs/e"} for side in ("left", "right")}
    of_kind = [{"type": "object", "properties": {**sides, "op": {"const": f"op{n}"}}, **more} for n in range(count)]
    return {"$ref": "#/$defs/e", "$defs": {"e": {key: [{"type": "number"}, *of_kind]}}}


def tree(depth: int, op: str, leaf: Any = 1) -> Any:
    return {"left": tree(depth - 1, op, leaf), "right": tree(depth - 1, op, leaf), "op": op} if depth else leaf


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
@pytest.mark.parametrize("count", [6, 20, 60])
def test_recursive_unions_of_many_kinds_are_checked(count: int, key: str) -> None:
    for more in ({}, {"required": ["op"]}):
        schema = JsonSchema(kinds(count, key, **more))
        began = time.thread_time()
        assert schema.problems(tree(7, f"op{count - 1}")) == []
        assert schema.problems(tree(4, "op1", leaf=[]))
        assert schema.problems(tree(4, "none"))
        assert time.thread_time() - began < 0.5


def test_kinds_that_name_each_other_are_checked() -> None:
    names = [f"K{n}" for n in range(20)]
    union = {"oneOf": [{"type": "null"}, *({"$ref": f"#/$defs/{name}"} for name in names)]}
    defs = {
        name: {
            "type": "object",
            "properties": {"child": union, "children": {"items": union}, "kind": {"const": name}},
            "required": ["kind"],
        }
        for name in names
    }
    value: Any = None
    for name in names:
        value = {"kind": name, "child": value, "children": [value, {"kind": "K0"}]} if len(name) < 3 else value
    schema = JsonSchema({"properties": {"root": union}, "$defs": defs})
    assert schema.problems({"root": value}) == []
    assert schema.problems({"root": {"kind": "K1", "child": {"kind": "K"}}})


def test_any_json_value_and_schemas_themselves_are_checked() -> None:
    json = {
        "anyOf": [
            *({"type": name} for name in ("null", "boolean", "number", "string")),
            {"type": "array", "items": {"$ref": "#/$defs/j"}},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/j"}},
        ]
    }
    schema = JsonSchema({"properties": {"data": {"$ref": "#/$defs/j"}}, "$defs": {"j": json}})
    deep: Any = 1
    for level in range(60):
        deep = [deep, "x"] if level % 2 else {"a": deep, "b": None}
    assert schema.problems({"data": deep}) == []
    meta = JsonSchema({"properties": {"schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}})
    assert meta.problems({"schema": kinds(20, "anyOf")}) == []
    assert meta.problems({"schema": {"type": "objekt"}})


def test_a_guard_changes_no_verdict() -> None:
    """The same values fit with and without the guards that are put in front of alternatives."""
    branches = [
        {"type": ["integer", "null"]},
        {"required": ["a"], "properties": {"a": {"enum": [1, True, "x"]}}, "type": "object"},
        {"properties": {"a": {"const": 2}}, "required": ["b"]},
        {"$ref": "#/$defs/list"},
    ]
    values = [1, 1.0, 1.5, True, None, "x", [], [1], {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": 2, "b": 0}, {"b": 1}]
    for key in ("anyOf", "oneOf"):
        schema = {key: branches, "$defs": {"list": {"type": "array", "minItems": 1}}, "unevaluatedProperties": False}
        counter = ValueVisits(SchemaVisits(schema))
        guarded = counter.guarded()
        assert guarded != schema
        for value in values:
            assert counter.of(value) < 100
            expected = jsonschema_rs.validator_for(schema).is_valid(value)
            assert jsonschema_rs.validator_for(guarded).is_valid(value) == expected, value


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(?=(a|aa)+$)(a+)+\\1$"])
def test_a_pattern_does_not_backtrack_for_long(pattern: str) -> None:
    schema = JsonSchema({"pattern": pattern})
    began = time.thread_time()
    assert schema.problems("a" * 5000 + "!")
    assert time.thread_time() - began < 0.1


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


def test_an_answer_that_is_nested_beyond_what_a_parser_can_read_is_not_json() -> None:
    options = ModelOptions(output_schema=OutputSchema(schema={}))
    with pytest.raises(ModelProtocol, match="is not JSON"):
        check_output(AIMessage(id="m", content="[" * 100_000 + "]" * 100_000), options)


async def test_arguments_answers_and_questions_that_are_too_expensive_to_check_say_so() -> None:
    schema, value = ladder(4, 20, "anyOf"), nested(20)
    options = ModelOptions(output_schema=OutputSchema(schema=schema))
    with pytest.raises(ModelProtocol, match="was not checked by the schema of the request: it takes too long"):
        check_output(AIMessage(id="m", content=msgspec.json.encode(value).decode()), options)
    with pytest.raises(Invalid, match="was not checked by the schema of question q: it takes too long"):
        OpenQuestion(id="q", key="k", kind="question", expects=schema).check(value, "me", approves=True, at="/x")
