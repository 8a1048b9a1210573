"""Arguments of a call that is still being written are read as far as they go."""

from typing import Any

import pytest

from app.runs.modes.partial_json import read_partial


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
def test_it_is_closed_where_it_stops(text: str, found: dict[str, Any]) -> None:
    assert read_partial(text) == found


def test_every_beginning_of_an_object_reads_as_an_object() -> None:
    text = '{"name": "a \\"b\\" c", "list": [1, [2, {"x": null}]], "deep": {"y": {"z": true}}}'
    for end in range(len(text)):
        assert isinstance(read_partial(text[:end]), dict)
