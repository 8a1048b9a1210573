"""A model's output is untrusted: it always becomes a message that can be stored."""

import time

import pytest

from app.agents.testing import FakeRunContext
from app.agents.tool_loop.answer_stream import AnswerAssembler
from app.agents.tool_loop.inputs import MAX_BYTES, read_object
from app.providers.llm.port import ToolCallDelta


def answered(*deltas: ToolCallDelta) -> AnswerAssembler:
    answer = AnswerAssembler(FakeRunContext(), "agent", set)
    for delta in deltas:
        answer.add(delta)
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


def test_a_call_with_unstorable_characters_gets_another_id_and_name() -> None:
    message = answered(ToolCallDelta(index=0, id="a\x00b", name="t\x00", args="{}")).message()
    (call,) = message.tool_calls
    assert "\x00" not in call.id + call.name
    assert call.id


@pytest.mark.parametrize("text", ['"' + '\\"' * 90_000, '{"a": "' + "\\\\" * 90_000, "[" * 180_000, '{"a":' * 30_000])
def test_hostile_arguments_are_refused_in_linear_time(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(ValueError):
        read_object(text)
    assert time.thread_time() - began < 0.1


def test_arguments_of_more_than_a_megabyte_are_an_invalid_call() -> None:
    with pytest.raises(ValueError, match="more than 1,048,576"):
        read_object('{"a": "' + "x" * MAX_BYTES + '"}')


def test_arguments_that_cannot_be_stored_are_an_invalid_call() -> None:
    with pytest.raises(ValueError, match="u0000"):
        read_object('{"a": "\\u0000"}')
