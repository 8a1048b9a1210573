"""Graphs that call models in the ways that make calls hard to count."""

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


class Counted(BaseChatModel):
    """A model that says ``text`` in so many ``pieces``; ``counts``: its provider counts; ``fails``, ``stops`` behind
    the first pieces."""

    text: str = "ok"
    pieces: int = 1
    counts: bool = True
    fails: int = -1
    stops: int = -1

    @property
    def _llm_type(self) -> str:
        return "counted"

    def _get_ls_params(self, stop: list[str] | None = None, **options: Any) -> Any:
        return {"ls_provider": "house", "ls_model_name": "counted"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        usage: Any = {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34} if self.counts else None
        if self.fails == 0:
            raise ValueError("the provider refuses")
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text, usage_metadata=usage))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in self._said():
            if piece == self.fails:
                raise ConnectionError("the provider is gone")
            if piece == self.stops:
                await asyncio.Event().wait()
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=self.text))
            if run_manager is not None:
                await run_manager.on_llm_new_token(self.text, chunk=chunk)
            yield chunk
        usage: Any = {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34}
        if self.counts:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))

    def _said(self) -> Iterator[int]:
        yield from range(self.pieces)


class Notes(TypedDict, total=False):
    question: str
    notes: Annotated[list[str], operator.add]


async def note(state: Notes) -> Notes:
    return {"notes": [str((await Counted().ainvoke(state["question"])).content)]}


def note_in_thread(state: Notes) -> Notes:
    return {"notes": [str(Counted().invoke(state["question"]).content)]}


async def uncounted(state: Notes) -> Notes:
    return {"notes": [str((await Counted(text="four token answers", counts=False).ainvoke(state["question"])).content)]}


async def refused(state: Notes) -> Notes:
    return {"notes": [str((await Counted(fails=0).ainvoke(state["question"])).content)]}


async def cut(state: Notes) -> Notes:
    async for _ in Counted(text="12 34 56", pieces=9, fails=5).astream(state["question"]):
        pass
    return {}


async def endless(state: Notes) -> Notes:
    async for _ in Counted(text="12 34 56" * 100, pieces=9, stops=3).astream(state["question"]):
        pass
    return {}


def asking(state: Notes) -> Notes:
    return {"notes": [interrupt("go on?")]}


def graph_of(*nodes: Any) -> Any:
    graph = StateGraph(Notes)
    for node in nodes:
        graph.add_node(node.__name__, node).add_edge(START, node.__name__)
    return graph.compile()


kept_text, in_thread, without_counts = graph_of(note), graph_of(note_in_thread), graph_of(uncounted)
refusal, broken, hanging, with_question = graph_of(refused), graph_of(cut), graph_of(endless), graph_of(note, asking)


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Counted().ainvoke(state["messages"])]}


inner = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
nested = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
