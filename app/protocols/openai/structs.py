"""Wire shapes of OpenAI's Chat Completions API: https://platform.openai.com/docs/api-reference/chat

Settings that the agent's own take the place of (``temperature``, ``seed``, …) are accepted and ignored; the response
names those that the request has.
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


class IgnoredSettings(msgspec.Struct, kw_only=True):
    """Settings of a request that have no effect."""

    temperature: Any = None
    top_p: Any = None
    seed: Any = None
    stop: Any = None
    n: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    service_tier: Any = None
    store: Any = None
    metadata: Any = None
    user: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    def given(self) -> list[str]:
        """Return the names of those that the request has."""
        return [name for name in IgnoredSettings.__struct_fields__ if getattr(self, name) is not None]


class ChatRequest(IgnoredSettings, kw_only=True):
    """A request for a completion. ``model`` is an assistant's id or an agent's name; the client runs its ``tools``."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
