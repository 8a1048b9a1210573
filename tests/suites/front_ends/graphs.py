"""An agent of langchain whose tool calls a person approves."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class Model(BaseChatModel):
    """Calls the tool that a message names by its first word, then says what the tool has answered, word by word."""

    @property
    def _llm_type(self) -> str:
        return "front-ends"

    def bind_tools(self, tools: Any, **options: Any) -> "Model":
        """Return itself: it calls what the message names."""
        return self

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return AIMessage(f"The tool has answered: {last.text}")
        name, _, rest = last.text.partition(" ")
        arguments = {"clock": {}, "weather": {"city": rest}}
        if name not in arguments:
            return AIMessage(f"You have said: {last.text}")
        return AIMessage("", tool_calls=[{"name": name, "args": arguments[name], "id": f"call-{len(messages)}"}])

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages)
        for word in reply.text.split(" ") if not reply.tool_calls else ():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
        if reply.tool_calls:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_calls=reply.tool_calls))

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(0.03)
            yield chunk


def weather(city: str) -> str:
    """Look up the weather in a city."""
    return f"sunny in {city}"


async def clock() -> str:
    """Tell the time, once the file ``GATE`` exists."""
    gate = Path(os.environ["GATE"])
    while not await asyncio.to_thread(gate.exists):  # noqa: ASYNC110  only the file connects test and server
        await asyncio.sleep(0.05)
    return "noon"


graph = create_agent(Model(), [weather, clock], middleware=[HumanInTheLoopMiddleware(interrupt_on={"weather": True})])
