"""Wire shapes of OpenAI's Chat Completions API: https://platform.openai.com/docs/api-reference/chat

Fields that a server of agents has no use for (``temperature``, ``seed``, …) are accepted and ignored.
"""

from typing import Any

import msgspec


class ChatFunction(msgspec.Struct, kw_only=True):
    """A function that the model called; ``arguments`` is JSON text."""

    name: str
    arguments: str = ""


class ChatToolCall(msgspec.Struct, kw_only=True):
    """A tool call in an assistant's message."""

    id: str
    function: ChatFunction
    type: str = "function"


class ChatMessage(msgspec.Struct, kw_only=True):
    """A message of a request: ``content`` is text or a list of content parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct, kw_only=True):
    """Options of a stream. ``include_usage``: the last chunk has the tokens of the request."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, kw_only=True):
    """A request for a completion. ``model`` is an assistant's id or an agent's name."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
