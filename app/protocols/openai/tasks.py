"""Requests that chat UIs make for themselves: titles, tags, follow-up questions, which belong to no chat."""

from collections.abc import Mapping
from typing import Any

TASK_HEADER = "x-openwebui-task"
"""A header that an operator of Open WebUI fills with its template ``{{TASK}}``; empty in requests of people."""

TASK_START = "### Task:"
"""How Open WebUI's prompts of tasks begin."""


def is_task(headers: Mapping[str, str], content: Any) -> bool:
    """Whether a request whose last message has ``content`` is a task: it runs without a thread and without tools."""
    if headers.get(TASK_HEADER):
        return True
    if isinstance(content, list):
        content = next((part.get("text") for part in content if isinstance(part, dict) and part.get("text")), "")
    return isinstance(content, str) and content.lstrip().startswith(TASK_START)
