"""A run of a long thread decodes its newest messages only."""

from typing import Any

import pytest

from app.agents.testing import FakeRunContext
from app.agents.tool_loop import conversation
from app.agents.tool_loop.agent import ToolLoop
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation import Conversation, paired
from app.domain.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from app.domain.state import MESSAGES, State
from app.providers.llm.scripted import EchoModel, last_human_text


class Decoded:
    """Counts decoded messages."""

    def __init__(self) -> None:
        self.count = 0
        self._decode = conversation._decode

    def __call__(self, element: bytes) -> Any:
        self.count += 1
        return self._decode(element)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    counting = Decoded()
    monkeypatch.setattr(conversation, "_decode", counting)
    return counting


def thread(turns: int) -> State:
    state = State()
    for number in range(turns):
        state.apply({MESSAGES: [HumanMessage(content=f"ask {number}", id=f"h{number}")]})
        state.apply({MESSAGES: [AIMessage(content=f"answer {number}", id=f"a{number}")]})
    return state


@pytest.mark.parametrize("turns", [10, 1600])
async def test_a_run_decodes_as_many_messages_of_a_long_thread_as_of_a_short_one(decoded: Decoded, turns: int) -> None:
    state = thread(turns)
    agent = ToolLoop("echo", EchoModel(), Toolbox([], lambda *_: None))
    await FakeRunContext(state).play(agent, [{"role": "user", "content": "first"}])
    decoded.count = 0
    run = FakeRunContext(state)
    await run.play(agent, [{"role": "user", "content": "second"}])
    assert decoded.count <= 6
    answer = run.messages()[-1]
    assert isinstance(answer, AIMessage)
    assert answer.content == "echo: second"


def test_a_conversation_is_the_list_of_its_messages(decoded: Decoded) -> None:
    state = thread(3)
    messages = Conversation.of(state)
    assert messages.plain
    whole = list(messages)
    assert [message.id for message in whole] == ["h0", "a0", "h1", "a1", "h2", "a2"]
    assert messages[-1] == whole[-1]
    assert messages[1:3] == whole[1:3]
    assert list(reversed(messages)) == whole[::-1]
    assert paired(messages) is messages
    assert last_human_text(messages) == "ask 2"
    messages.extend([HumanMessage(content="more", id="h3")])
    assert (len(messages), messages[-1].id, messages.plain) == (7, "h3", True)


def test_calls_and_answers_are_still_paired(decoded: Decoded) -> None:
    state = thread(2)
    asks = AIMessage(content="", id="c", tool_calls=[ToolCall(name="look", args={}, id="1")])
    state.apply({MESSAGES: [asks, HumanMessage(content="never mind", id="n")]})
    messages = Conversation.of(state)
    assert not messages.plain
    kinds = [type(message) for message in paired(messages)]
    assert kinds[-3:] == [AIMessage, ToolMessage, HumanMessage]
    state.apply({MESSAGES: [{"type": "remove", "id": "c"}]})
    assert Conversation.of(state).plain
