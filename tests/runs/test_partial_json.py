"""Incomplete arguments of a tool call are parsed as far as possible."""

import time
from typing import Any

import pytest

from app.domain.events import MessageDelta
from app.engine.streams.modes.messages import PartialMessage, read_partial


@pytest.mark.parametrize(
    "text,found",
    [
        ("", {}),
        ("{", {}),
        ('{"a', {}),
        ('{"a":', {}),
        ('{"a": "b', {"a": "b"}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b", ', {"a": "b"}),
        ('{"a": 1, "c', {"a": 1}),
        ('{"a": 1, "c": [1, {"d": tr', {"a": 1, "c": [1, {}]}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('{"a": "}]{["}', {"a": "}]{["}),
        ('{"a": 1}', {"a": 1}),
        ("[1, 2", {}),
        ("nonsense", {}),
        ("}}}", {}),
    ],
)
def test_incomplete_json_is_closed_where_it_stops(text: str, found: dict[str, Any]) -> None:
    assert read_partial(text) == found


def test_every_prefix_of_an_object_parses_as_an_object() -> None:
    text = '{"name": "a \\"b\\" c", "list": [1, [2, {"x": null}]], "deep": {"y": {"z": true}}}'
    for end in range(len(text)):
        assert isinstance(read_partial(text[:end]), dict)


def test_long_arguments_in_small_chunks_are_parsed_in_linear_time() -> None:
    growing = PartialMessage()
    began = time.thread_time()
    for _ in range(4000):
        piece = {"index": 0, "id": "c", "name": "t", "args": "x" * 50}
        growing.add(MessageDelta("m", "agent", 1, tool_call=piece))
        growing.message("m")
    assert time.thread_time() - began < 2.0
