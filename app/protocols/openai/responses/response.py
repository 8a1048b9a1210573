"""The response object, and the ids of responses and conversations.

A field that a run does not know is null, or OpenAI's default where its schema allows no null.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.agents.port import ModelOptions
from app.domain.messages import Usage
from app.engine.structs import Run
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.openai.tools import client_tool_names
from app.providers.llm.port import ANY_TOOL, ToolChoice, ToolSpec

RESPONSE = "resp_"
CONVERSATION = "conv_"


def response_id(run_id: UUID) -> str:
    """Return the id of a run as a response."""
    return f"{RESPONSE}{run_id.hex}"


def conversation_id(thread_id: UUID) -> str:
    """Return the id of a thread as a conversation."""
    return f"{CONVERSATION}{thread_id.hex}"


def uuid_in(given: str, prefix: str) -> UUID | None:
    """Return the UUID in an id with ``prefix``, or the UUID that it is; None if it is neither."""
    try:
        return UUID(given.removeprefix(prefix))
    except ValueError:
        return None


class _Stored(msgspec.Struct):
    openai: StoredSettings = msgspec.field(default_factory=StoredSettings)


class _Kwargs(msgspec.Struct):
    model_options: ModelOptions = ModelOptions()


class ResponseHead(NamedTuple):
    """What a response repeats of its run's request. ``created_at``: Unix seconds; ``agent``: label of its tools."""

    id: str
    run_id: UUID
    thread_id: UUID
    created_at: int
    settings: StoredSettings
    options: ModelOptions

    @property
    def client_tools(self) -> Collection[str]:
        """The names of the tools whose calls go to the client."""
        return client_tool_names(self.options)

    @property
    def agent(self) -> str:
        """Label of the agent's own tools."""
        return self.settings.model or "agent"

    def object(self, status: str, **known: Any) -> dict[str, Any]:
        """Return the response with a ``status`` and what is ``known`` of its end."""
        settings, options = self.settings, self.options
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": None,
            "status": status,
            "background": bool(settings.background),
            "error": None,
            "incomplete_details": None,
            "instructions": options.instructions or None,
            "max_output_tokens": settings.max_output_tokens,
            "max_tool_calls": settings.max_tool_calls,
            "model": self.agent,
            "output": [],
            "parallel_tool_calls": options.parallel_tool_calls,
            "previous_response_id": settings.previous_response_id,
            "conversation": {"id": conversation_id(self.thread_id)} if settings.conversation else None,
            "reasoning": settings.reasoning or {"effort": None, "summary": None},
            "store": settings.store is not False,
            "temperature": 1.0 if settings.temperature is None else settings.temperature,
            "text": settings.text or {"format": {"type": "text"}},
            "tool_choice": _choice_of(options.tool_choice),
            "tools": [_tool_of(tool) for tool in options.tools],
            "top_p": 1.0 if settings.top_p is None else settings.top_p,
            "top_logprobs": settings.top_logprobs or 0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "truncation": settings.truncation or "disabled",
            "service_tier": settings.service_tier or "default",
            "usage": None,
            "metadata": settings.metadata or {},
            "safety_identifier": settings.safety_identifier,
            "prompt_cache_key": settings.prompt_cache_key,
            "user": settings.user,
            **known,
        }


def head_of(run: Run) -> ResponseHead:
    """Return the head of any run as a response."""
    settings = settings_in(run.metadata)
    settings.model = settings.model or str(run.assistant_id)
    options = msgspec.json.decode(bytes(run.kwargs) or b"{}", type=_Kwargs).model_options  # empty: it waits for memory
    return ResponseHead(response_id(run.run_id), run.run_id, run.thread_id, seconds(run.created_at), settings, options)


def settings_in(metadata: Any) -> StoredSettings:
    """Return what a run's metadata keeps of its request; nothing if a client of another API wrote it."""
    text = metadata if isinstance(metadata, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(metadata))
    try:
        return msgspec.json.decode(text, type=_Stored).openai
    except msgspec.ValidationError:
        return StoredSettings()


def seconds(at: datetime) -> int:
    """Return Unix seconds."""
    return int(at.timestamp())


def usage_of(usages: Collection[Usage]) -> dict[str, Any]:
    """Return the tokens of all model calls."""
    total = Usage()
    cached = written = reasoning = 0
    for usage in usages:
        total = total.plus(usage)
        cached += usage.input_token_details.get("cache_read", 0)
        written += usage.input_token_details.get("cache_creation", 0)
        reasoning += usage.output_token_details.get("reasoning", 0)
    return {
        "input_tokens": total.input_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": total.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": total.total_tokens,
    }


def _tool_of(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters,
        "strict": None,
    }


def _choice_of(choice: ToolChoice) -> Any:
    if choice == ANY_TOOL or not choice.names:
        return choice.mode
    functions = [{"type": "function", "name": name} for name in choice.names]
    if choice.mode == "required" and len(functions) == 1:
        return functions[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": functions}
