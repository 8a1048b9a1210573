"""Public API for authors of function agents: ``from app.agents.function import Context, step``."""

from app.agents.functions.context import Context, RunInfo
from app.agents.functions.steps import step
from app.base.errors import ModelError, StepFailed, ToolFailed
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolCall, ToolMessage

__all__ = [
    "AIMessage",
    "Context",
    "HumanMessage",
    "Message",
    "ModelError",
    "RunInfo",
    "StepFailed",
    "SystemMessage",
    "ToolCall",
    "ToolFailed",
    "ToolMessage",
    "step",
]
