"""Wire shapes of OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses/create"""

from typing import Any

import msgspec

Items = list[dict[str, Any]]

IGNORED = (
    "temperature",
    "top_p",
    "top_logprobs",
    "max_output_tokens",
    "max_tool_calls",
    "reasoning",
    "truncation",
    "service_tier",
    "include",
    "prompt",
    "stream_options",
)
"""Settings of a request that have no effect."""


class RequestSettings(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a response repeats of its request; stored with the run. Settings of the model have no effect."""

    model: str = ""
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    truncation: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None


class ResumedCall(msgspec.Struct, kw_only=True):
    """A call that waited, and that this response continues; ``client``: the request has its result.

    ``question``: the id of the question that the call asked.
    """

    arguments: str = ""
    question: str = ""
    client: bool = False

    @property
    def request_id(self) -> str | None:
        """The id of its approval request; None for a call of the client."""
        return None if self.client else f"mcpr_{self.question}"


class StoredSettings(RequestSettings, kw_only=True, omit_defaults=True):
    """Member ``openai`` of a run's metadata. ``resumed``: calls by id; ``conversation``: the request named one."""

    conversation: bool = False
    resumed: dict[str, ResumedCall] = {}


class ResponseRequest(RequestSettings, kw_only=True):
    """A request for a response. ``model`` is an assistant's id or an agent's name; the client runs its ``tools``."""

    model: str
    input: str | Items | None = None
    instructions: str | None = None
    conversation: str | dict[str, Any] | None = None
    stream: bool | None = None
    tools: Items | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    include: Any = None
    prompt: Any = None
    stream_options: Any = None

    def settings(self) -> dict[str, Any]:
        """Return what is stored of it."""
        return {name: getattr(self, name) for name in RequestSettings.__struct_fields__}

    def ignored(self) -> list[str]:
        """Return the names of its settings that have no effect."""
        return [name for name in IGNORED if getattr(self, name) is not None]
