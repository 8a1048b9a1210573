"""The table of the page on runs has every field of a run's body, with its type and default."""

import json
import re
import types
import typing
from typing import Any

import msgspec
import pytest

from app.engine.structs import RunCreate
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "reference" / "runs.md").read_text(encoding="utf-8")
FIELDS = {field.name: field for field in msgspec.structs.fields(RunCreate)}
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## The body of a run")[2].partition("###")[0].splitlines()
    if re.match(r"\| `", line)
]


def in_words(kind: Any) -> str:
    """Return a type as the page names it."""
    if kind is Any:
        return "any"
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        parts = [in_words(part) for part in typing.get_args(kind) if part is not type(None)]
        return ", ".join(sorted(parts, key=lambda part: "list" not in part) if '`"*"`' in parts else parts)
    if typing.get_origin(kind) is typing.Literal:
        values = typing.get_args(kind)
        return '`"*"`' if values == ("*",) else ", ".join(f"`{value}`" for value in values)
    if typing.get_origin(kind) is list:
        return f"list of {in_words(typing.get_args(kind)[0])}s"
    if typing.get_origin(kind) is dict or issubclass(kind, msgspec.Struct):
        return "object"
    return {str: "string", bool: "boolean", float: "number", int: "number"}[kind]


def test_the_table_has_every_field_once() -> None:
    assert sorted(row[0].strip("`") for row in ROWS) == sorted(FIELDS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_field_has_its_type_and_default(row: list[str]) -> None:
    name, kind, default, meaning = row
    field = FIELDS[name.strip("`")]
    if field.name == "stream_mode":  # its nine values have a table of their own
        assert kind == "string, list of strings"
    else:
        assert kind == in_words(field.type)
    assert default == ("–" if field.required else f"`{json.dumps(field.default)}`")
    assert len(meaning) > 20


def test_the_page_names_every_stream_mode() -> None:
    modes = typing.get_args(typing.get_args(typing.get_type_hints(RunCreate)["stream_mode"])[0])
    table = PAGE.partition("## Streams")[2]
    assert [mode for mode in modes if f"`{mode}`" not in table] == []


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_the_page_has_an_example_of_every_field(field: str) -> None:
    """Fields that change nothing are accepted for clients, and the table says so; others are in a block or linked."""
    blocks = "".join(re.findall(r"```\w+\n.*?```", PAGE, re.DOTALL))
    (meaning,) = (row[3] for row in ROWS if row[0] == f"`{field}`")
    linked = {"webhook", "strict_resume"}
    assert (
        field in blocks or field == "assistant_id" or field in linked or "accepted" in meaning or "not used" in meaning
    )
