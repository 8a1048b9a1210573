"""Conversation messages, in the JSON shapes that LangGraph clients read and write.

One struct per role, distinguished by the tag field ``type`` (``human``, ``ai``, ``tool``, ``system``). Content is plain
text or a list of content blocks (text, image, …), which are passed to the provider unchanged.
"""

from typing import Any

import msgspec

Content = str | list[dict[str, Any]]

WAITING_CALLS = "waiting_calls"
"""Member of an AI message's ``response_metadata``: ids of calls that wait → ``client`` or ``approval``."""


class ToolCall(msgspec.Struct, tag_field="type", tag="tool_call", frozen=True):
    """A tool call requested by the model: tool ``name``, decoded ``args`` (a JSON object) and the provider's ``id``."""

    name: str
    args: dict[str, Any]
    id: str


class InvalidToolCall(msgspec.Struct, tag_field="type", tag="invalid_tool_call", frozen=True):
    """A tool call whose arguments were not a JSON object; ``args`` is the text as the model sent it."""

    name: str
    args: str
    id: str
    error: str


class Usage(msgspec.Struct, frozen=True):
    """Token usage of one model call, as counted by the provider."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_token_details: dict[str, int] = {}
    output_token_details: dict[str, int] = {}

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum of both, without details."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class HumanMessage(msgspec.Struct, tag_field="type", tag="human", kw_only=True):
    """A message of the user."""

    content: Content
    additional_kwargs: dict[str, Any] = {}
    response_metadata: dict[str, Any] = {}
    name: str | None = None
    id: str | None = None


class SystemMessage(msgspec.Struct, tag_field="type", tag="system", kw_only=True):
    """A system instruction within the conversation."""

    content: Content
    additional_kwargs: dict[str, Any] = {}
    response_metadata: dict[str, Any] = {}
    name: str | None = None
    id: str | None = None


class AIMessage(msgspec.Struct, tag_field="type", tag="ai", kw_only=True):
    """A message of the model: text, tool calls, or both."""

    content: Content
    additional_kwargs: dict[str, Any] = {}
    response_metadata: dict[str, Any] = {}
    name: str | None = None
    id: str | None = None
    tool_calls: list[ToolCall] = []
    invalid_tool_calls: list[InvalidToolCall] = []
    usage_metadata: Usage | None = None


class ToolMessage(msgspec.Struct, tag_field="type", tag="tool", kw_only=True):
    """The result of the tool call ``tool_call_id``; ``status`` is ``success`` or ``error``."""

    content: Content
    additional_kwargs: dict[str, Any] = {}
    response_metadata: dict[str, Any] = {}
    name: str | None = None
    id: str | None = None
    tool_call_id: str
    artifact: Any = None
    status: str = "success"


Message = HumanMessage | SystemMessage | AIMessage | ToolMessage


def text_of(content: Content) -> str:
    """Return the text of ``content``: the string itself, or its text blocks joined."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if block.get("type") == "text")
