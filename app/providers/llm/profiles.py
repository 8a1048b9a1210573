"""Profiles of providers and models: their defaults and differences, as data."""

from typing import Any

import msgspec

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
OPENAI_DEFAULT = "gpt-5-mini"
ANTHROPIC_DEFAULT = "claude-sonnet-4-5"
NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "moderation", "dall-e", "bge-", "minilm")
"""Name parts of models that cannot chat: skipped when the first listed model is chosen."""

REFUSALS = ("unsupported", "not support", "unrecognized", "unknown", "unexpected", "not permitted", "not allowed")
"""Words in errors of servers that reject a parameter itself, rather than its value."""


class OpenAIProfile(msgspec.Struct, frozen=True):
    """Parameters that a Chat Completions server supports.

    ``max_tokens``: its name for the limit of the answer; ``usage_option``: whether it supports
    ``stream_options.include_usage``; ``temperature``: whether the model allows setting it (if not, it is omitted);
    ``output_schema``: whether it takes the schema of an answer (if not, the model is asked for it in words).
    """

    max_tokens: str = "max_tokens"
    usage_option: bool = True
    temperature: bool = True
    output_schema: bool = True


COMPATIBLE = OpenAIProfile()
"""Ollama, vLLM, llama.cpp, LiteLLM and other compatible servers."""

OPENAI_PROFILES: tuple[tuple[str, OpenAIProfile], ...] = (
    ("gpt-5-chat", OpenAIProfile(max_tokens="max_completion_tokens")),
    ("gpt-5", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o1", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o3", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o4", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("", OpenAIProfile(max_tokens="max_completion_tokens")),
)
"""OpenAI's own models by name prefix; the first match wins."""


class AnthropicProfile(msgspec.Struct, frozen=True):
    """``max_tokens`` is sent if the caller sets no limit, because the API requires one."""

    max_tokens: int


ANTHROPIC_PROFILES: tuple[tuple[str, AnthropicProfile], ...] = (
    ("claude-3-5", AnthropicProfile(max_tokens=8_192)),
    ("claude-3-7", AnthropicProfile(max_tokens=32_000)),
    ("claude-3", AnthropicProfile(max_tokens=4_096)),
    ("", AnthropicProfile(max_tokens=32_000)),
)
"""Anthropic's models by name prefix; the first match wins."""


def openai_profile(base_url: str, model: str) -> OpenAIProfile:
    """Return the profile of ``model`` at ``base_url``."""
    if base_url != OPENAI_URL:
        return COMPATIBLE
    return next(profile for start, profile in OPENAI_PROFILES if model.startswith(start))


def anthropic_profile(model: str) -> AnthropicProfile:
    """Return the profile of ``model``."""
    return next(profile for start, profile in ANTHROPIC_PROFILES if model.startswith(start))


def without_rejected(profile: OpenAIProfile, complaint: str) -> OpenAIProfile | None:
    """Return the profile without the parameter that a server's ``complaint`` rejects; None if it rejects none."""
    said = complaint.lower()
    if not any(word in said for word in REFUSALS):
        return None
    changes: dict[str, Any] = {}
    if profile.usage_option and "stream_options" in said:
        changes["usage_option"] = False
    elif profile.max_tokens == "max_tokens" and "max_tokens" in said:
        changes["max_tokens"] = "max_completion_tokens"
    elif profile.max_tokens == "max_completion_tokens" and "max_completion_tokens" in said:
        changes["max_tokens"] = "max_tokens"
    elif profile.temperature and "temperature" in said:
        changes["temperature"] = False
    elif profile.output_schema and ("response_format" in said or "json_schema" in said):
        changes["output_schema"] = False
    return msgspec.structs.replace(profile, **changes) if changes else None
