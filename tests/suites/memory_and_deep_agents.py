"""Agents of ``deepagents``, and one with the tools of ``langmem``, whose models are fakes."""

from collections.abc import Callable, Sequence
from typing import Any

from deepagents import create_deep_agent  # type: ignore[import-not-found]
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langmem import create_manage_memory_tool, create_search_memory_tool  # type: ignore[import-not-found]


class Scripted(BaseChatModel):
    """Makes the calls of ``script`` one after the other in each turn, then says what the last result was."""

    script: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        asked = max(number for number, message in enumerate(messages) if message.type == "human")
        done = sum(message.type == "ai" for message in messages[asked:])
        calls = self.script[done : done + 1]
        said = AIMessage("" if calls else f"the last result: {messages[-1].content}", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=said)])


def call(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": f"call-{name}", "type": "tool_call"}


NOTE = call("write_file", file_path="/notes.txt", content="a note")
READ = call("read_file", file_path="/notes.txt")

helper: Any = {
    "name": "helper",
    "description": "Helps.",
    "system_prompt": "Help.",
    "model": Scripted(script=[]),
}
deep = create_deep_agent(
    model=Scripted(script=[NOTE, call("task", description="be kind", subagent_type="helper"), READ]), subagents=[helper]
)
careful = create_deep_agent(model=Scripted(script=[NOTE]), interrupt_on={"write_file": True})

PLACE = ("memories", "{langgraph_user}")
TOOLS: list[Callable[..., Any]] = [create_manage_memory_tool, create_search_memory_tool]
memory = create_agent(
    Scripted(
        script=[
            call("manage_memory", content="likes green tea", action="create"),
            call("search_memory", query="green tea"),
        ]
    ),
    tools=[make(namespace=PLACE) for make in TOOLS],
)
