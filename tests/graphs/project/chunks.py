"""A supervisor and its sub-agent, whose models stream all that a chunk of a message can hold."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph

PARTS: list[dict[str, Any]] = [
    {"content": "one ", "response_metadata": {"model_provider": "scripted"}},
    {"content": "two", "response_metadata": {"model_provider": "scripted"}},
    {"content": "", "additional_kwargs": {"reasoning_content": "hm"}},
    {"content": [{"type": "text", "text": "see", "index": 0}, {"type": "image", "url": "http://x/y.png"}]},
    {"content": "", "tool_call_chunks": [{"index": 0, "id": "a", "name": "look", "args": '{"at"'}]},
    {"content": "", "tool_call_chunks": [{"index": 0, "id": None, "name": None, "args": ': "it"}'}]},
    {"content": "", "usage_metadata": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}},
    {"content": "", "response_metadata": {"finish_reason": "stop"}, "name": "scripted"},
]


class Chunky(BaseChatModel):
    """A model that answers with the chunks ``parts``."""

    parts: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "chunky"

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("not streamed"))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for part in self.parts:
            yield ChatGenerationChunk(message=AIMessageChunk(**part))


calls = [{"index": at, "id": f"c{at}", "name": "look", "args": f'{{"at": {at}}}'} for at in (0, 1)]
thinker = Chunky(parts=PARTS, tags=["thinks"])
caller = Chunky(parts=[{"content": "", "tool_call_chunks": calls}], tags=["calls"])


async def answer(state: MessagesState) -> dict[str, Any]:
    await thinker.ainvoke(state["messages"])
    await caller.ainvoke(state["messages"])
    return {"messages": [AIMessage("answered")]}


member = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
supervised = (
    StateGraph(MessagesState)
    .add_node("answer", answer)
    .add_node("member", member)
    .add_edge(START, "answer")
    .add_edge("answer", "member")
    .compile()
)


def report(state: MessagesState) -> None:
    get_stream_writer()("of a subgraph")


reporter = StateGraph(MessagesState).add_node("report", report).add_edge(START, "report").compile()


@task
async def fetch(number: int) -> int:
    get_stream_writer()(f"of task {number}")
    await reporter.ainvoke({"messages": []})
    return number


@entrypoint()
async def reporting(given: dict[str, Any]) -> dict[str, Any]:
    get_stream_writer()("of the entry point")
    return {"fetched": [await fetch(number) for number in given["numbers"]]}
