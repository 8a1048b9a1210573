"""What a model sends is untrusted: it becomes a message that can be kept, whatever it holds."""

import pytest

from app.agents.testing import Rehearsal
from app.agents.toolloop.answer import Answer
from app.llm.port import ToolCallDelta


def answered(*deltas: ToolCallDelta) -> Answer:
    answer = Answer(Rehearsal(), "agent", set)
    for delta in deltas:
        answer.take(delta)
    return answer


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_arguments_nested_without_end_are_an_invalid_call(opening: str) -> None:
    message = answered(ToolCallDelta(index=0, id="c", name="t", args=opening * 100_000)).message()
    assert message.tool_calls == []
    assert [call.id for call in message.invalid_tool_calls] == ["c"]


def test_arguments_too_deep_to_be_stored_or_checked_are_an_invalid_call() -> None:
    args = '{"a":' * 500 + "1" + "}" * 500
    message = answered(ToolCallDelta(index=0, id="c", name="t", args=args)).message()
    assert [call.id for call in message.invalid_tool_calls] == ["c"]


def test_a_call_whose_id_or_name_holds_what_a_database_refuses_gets_others() -> None:
    message = answered(ToolCallDelta(index=0, id="a\x00b", name="t\x00", args="{}")).message()
    (call,) = message.tool_calls
    assert "\x00" not in call.id + call.name
    assert call.id
