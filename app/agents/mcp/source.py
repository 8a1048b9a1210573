"""The tools of one MCP server that one agent uses: those that are as they were when they were accepted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from app.agents.mcp.pins import PinnedTool, ToolList
from app.agents.mcp.resources import resource_tools
from app.agents.mcp.spec import ALL, shown_name
from app.agents.mcp.tool import McpTool, SignInTool
from app.agents.tools.port import Tool

if TYPE_CHECKING:
    from app.agents.mcp.servers import McpServer

GONE = "the server does not offer it"
NEW = "it is new: an operator has not accepted it yet"
CHANGED = "its description or schema changed since it was accepted"

log = structlog.get_logger(__name__)


class McpToolSource:
    """Tools ``names`` (``*``: all) of ``server`` for the agent ``agent`` (``app.agents.tools.port.ToolSource``)."""

    def __init__(self, agent: str, server: "McpServer", names: Sequence[str]) -> None:
        self.agent = agent
        self.server = server
        self.names = tuple(names)
        self.version = 0
        self._tools: list[Tool] = [SignInTool(server)] if server.spec.oauth is not None else []
        self._resources = resource_tools(server) if server.spec.resources else {}
        self._refused: dict[str, str] = {}

    @property
    def stopped(self) -> bool:
        """Whether tools wait for an operator to accept them."""
        return any(reason in {NEW, CHANGED} for reason in self._refused.values())

    @property
    def problem(self) -> str:
        """Why none of the tools can be used; empty if they can."""
        return f"the MCP server {self.server.name!r}: {self.server.problem}" if self.server.problem else ""

    def tools(self) -> Sequence[Tool]:
        """Return the tools that can be used now."""
        return self._tools

    def refusal(self, name: str) -> str:
        """Return why the tool ``name``, as models call it, cannot be used; empty for a tool that is not refused."""
        return self._refused.get(name, "")

    def update(self, listed: ToolList, accepted: ToolList) -> None:
        """Take over what the server lists, tool by tool as far as it is as ``accepted``."""
        before = {tool.pinned: tool for tool in self._tools if isinstance(tool, McpTool)}
        offered, pinned = listed.digests, accepted.digests
        ours = {name: tool for name, tool in self._resources.items() if name not in listed.tools}
        tools: list[Tool] = [tool for name, tool in ours.items() if {ALL, name} & set(self.names)]
        refused: dict[str, str] = {}
        for name in listed.tools if ALL in self.names else (name for name in self.names if name not in ours):
            reason = stop_reason(offered.get(name), pinned.get(name))
            if not reason:
                try:
                    found = PinnedTool(name, offered[name])
                    tools.append(before.get(found) or McpTool(self.server, listed.tools[name], found))
                    continue
                except ValueError as error:
                    reason = f"it cannot be used: {error}"
            refused[shown_name(self.server.name, name)] = reason
        for name, reason in refused.items():
            if self._refused.get(name) != reason:
                log.warning("mcp_tool_stopped", agent=self.agent, server=self.server.name, tool=name, reason=reason)
        if (tools, refused) != (self._tools, self._refused):
            self._tools, self._refused = tools, refused
            self.version += 1


def stop_reason(listed: str | None, accepted: str | None) -> str:
    """Return why a tool may not be called, by the digests of what is listed and accepted; empty if it may."""
    if listed is None:
        return GONE
    if accepted is None:
        return NEW
    return CHANGED if listed != accepted else ""
