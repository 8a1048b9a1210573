"""What authors of tools import: ``from app.tools import ToolContext, ToolResult, tool``."""

from app.tools.function import tool
from app.tools.port import ToolClass, ToolContext, ToolResult

__all__ = ["ToolClass", "ToolContext", "ToolResult", "tool"]
