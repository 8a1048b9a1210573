"""Requests that chat UIs make for themselves: titles, tags, follow-up questions, which belong to no chat."""

from collections.abc import Mapping
from typing import Any

from app.agents.port import ModelOptions
from app.base.errors import Invalid, NotFound
from app.protocols.gateway import ProtocolGateway
from app.providers.llm.port import ToolChoice
from app.security.access.structs import Principal

TASK_HEADER = "x-openwebui-task"
"""A header that an operator of Open WebUI fills with its template ``{{TASK}}``; empty in requests of people."""

TASK_START = "### Task:"
"""How Open WebUI's prompts of tasks begin. That of a person's question with documents begins so too."""

TASK_CHAT = "<chat_history>"
"""What a prompt of a task has, and a question does not: the chat that it is about."""

WITHOUT_TOOLS = ModelOptions(tool_choice=ToolChoice(mode="none"))
"""For tasks: one model call."""


def is_task(headers: Mapping[str, str], content: Any) -> bool:
    """Whether a request whose last message has ``content`` is a task: it runs without a thread and without tools."""
    if headers.get(TASK_HEADER):
        return True
    if isinstance(content, list):
        content = next((part.get("text") for part in content if isinstance(part, dict) and part.get("text")), "")
    return isinstance(content, str) and content.lstrip().startswith(TASK_START) and TASK_CHAT in content


async def runs_with_options(gateway: ProtocolGateway, principal: Principal, model: str) -> bool:
    """Whether the agent of an assistant, given by its id or the agent's name, takes ``WITHOUT_TOOLS``.

    False of an unknown one: the start of the run refuses it.
    """
    try:
        agent = await gateway.assistants.runnable(principal, model)
    except (Invalid, NotFound):
        return False
    return gateway.runs.accepts_options(agent.name)
