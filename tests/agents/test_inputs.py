"""The supported forms of a caller's input, and errors with JSON pointers."""

from typing import Any

import msgspec
import pytest

from app.agents.testing import FakeRunContext
from app.agents.tool_loop.inputs import read_input
from app.base.errors import Invalid

MESSAGES: list[tuple[Any, str]] = [
    ("hi", "human"),
    ({"role": "user", "content": "hi"}, "human"),
    ({"type": "human", "content": "hi"}, "human"),
    (["user", "hi"], "human"),
    ({"role": "system", "content": "hi"}, "system"),
    ({"role": "assistant", "content": "hi"}, "ai"),
    ({"role": "tool", "content": "hi", "tool_call_id": "c"}, "tool"),
    ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, "human"),
]


@pytest.mark.parametrize("given,kind", MESSAGES)
def test_messages_are_accepted_in_every_supported_form(given: Any, kind: str) -> None:
    run = FakeRunContext()
    run.state.apply(read_input({"messages": [given]}, run.run_id))
    assert run.state.get("messages")[0]["type"] == kind
    assert run.state.get("messages")[0]["id"]


def test_an_image_passes_through_and_reading_twice_gives_the_same_ids() -> None:
    run = FakeRunContext()
    blocks = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    once = read_input([{"role": "user", "content": blocks}], run.run_id)
    again = read_input([{"role": "user", "content": blocks}], run.run_id)
    assert [bytes(m) for m in once["messages"]] == [bytes(m) for m in again["messages"]]
    assert msgspec.json.decode(once["messages"][0])["content"] == blocks


@pytest.mark.parametrize(
    "given,pointer",
    [
        (5, "/input"),
        ({"messages": [5]}, "/input/messages/0"),
        ({"messages": [{"role": "bogus", "content": "x"}]}, "/input/messages/0"),
        ({"messages": ["ok", {"role": "user"}]}, "/input/messages/1/content"),
        ({"messages": [{"role": "user", "content": 5}]}, "/input/messages/0/content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "/input/messages/0/content/0"),
        ({"messages": [{"role": "user", "content": "x", "id": ""}]}, "/input/messages/0/id"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "/input/messages/0/tool_call_id"),
        ({"messages": [{"type": "remove"}]}, "/input/messages/0/id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": 1}]}]}, "/input/messages/0/tool_calls/0"),
    ],
)
def test_an_invalid_conversation_is_rejected_with_a_pointer(given: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_input(given, FakeRunContext().run_id)
    assert caught.value.errors[0][0] == pointer
