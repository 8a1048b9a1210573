"""Public API for authors of tools: ``from app.tools import ToolContext, ToolResult, tool``."""

from app.agents.tools.function_tool import tool
from app.agents.tools.port import ToolClass, ToolContext, ToolResult

__all__ = ["ToolClass", "ToolContext", "ToolResult", "tool"]
