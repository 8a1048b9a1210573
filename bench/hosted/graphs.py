"""The graphs of ``bench.graphs``, as a project of LangGraph has them."""

from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

TOKENS = 100


class Talker(BaseChatModel):
    """A model that says ``TOKENS`` tokens at once."""

    @property
    def _llm_type(self) -> str:
        return "talker"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = "".join(str(one.text) for one in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for number in range(TOKENS):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"tok{number} "))


def say(state: MessagesState) -> dict[str, Any]:
    """Echo the last message."""
    return {"messages": [AIMessage(content=f"echo: {state['messages'][-1].content}")]}


async def talk(state: MessagesState) -> dict[str, Any]:
    """Answer by the model."""
    return {"messages": [await Talker().ainvoke(state["messages"])]}


echo = StateGraph(MessagesState).add_node(say).add_edge(START, "say").compile()
stream100 = StateGraph(MessagesState).add_node(talk).add_edge(START, "talk").compile()
