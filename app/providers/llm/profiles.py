"""How providers and models differ, as data."""

from typing import Any

import msgspec

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
OPENAI_DEFAULT = "gpt-5-mini"
ANTHROPIC_DEFAULT = "claude-sonnet-4-5"
NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "moderation", "dall-e", "bge-", "minilm")
"""Parts of the names of models that answer no conversation: passed over when the first listed model is taken."""


class OpenAIProfile(msgspec.Struct, frozen=True):
    """What a server that speaks Chat Completions takes.

    ``max_tokens`` is its name for the limit of the answer, ``usage_option`` whether it knows
    ``stream_options.include_usage``, ``temperature`` whether the model lets it be set (where not, it is left out).
    """

    max_tokens: str = "max_tokens"
    usage_option: bool = True
    temperature: bool = True


COMPATIBLE = OpenAIProfile()
"""Ollama, vLLM, llama.cpp, LiteLLM and the many others."""

OPENAI_PROFILES: tuple[tuple[str, OpenAIProfile], ...] = (
    ("gpt-5-chat", OpenAIProfile(max_tokens="max_completion_tokens")),
    ("gpt-5", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o1", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o3", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("o4", OpenAIProfile(max_tokens="max_completion_tokens", temperature=False)),
    ("", OpenAIProfile(max_tokens="max_completion_tokens")),
)
"""OpenAI's own models by the beginning of their names; the first row that fits counts."""

REFUSALS = ("unsupported", "not support", "unrecognized", "unknown", "unexpected", "not permitted", "not allowed")
"""Words of servers that refuse a parameter as such, rather than its value."""


class AnthropicProfile(msgspec.Struct, frozen=True):
    """``max_tokens`` is sent when the caller sets no limit, because the wire demands one."""

    max_tokens: int


ANTHROPIC_PROFILES: tuple[tuple[str, AnthropicProfile], ...] = (
    ("claude-3-5", AnthropicProfile(max_tokens=8_192)),
    ("claude-3-7", AnthropicProfile(max_tokens=32_000)),
    ("claude-3", AnthropicProfile(max_tokens=4_096)),
    ("", AnthropicProfile(max_tokens=32_000)),
)
"""Anthropic's models by the beginning of their names; the first row that fits counts."""


def openai_profile(base_url: str, model: str) -> OpenAIProfile:
    """The profile of ``model`` at ``base_url``."""
    if base_url != OPENAI_URL:
        return COMPATIBLE
    return next(profile for start, profile in OPENAI_PROFILES if model.startswith(start))


def anthropic_profile(model: str) -> AnthropicProfile:
    """The profile of ``model``."""
    return next(profile for start, profile in ANTHROPIC_PROFILES if model.startswith(start))


def without_refused(profile: OpenAIProfile, complaint: str) -> OpenAIProfile | None:
    """The profile to go on with after a server's ``complaint`` about a parameter; None if it is about none."""
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
    return msgspec.structs.replace(profile, **changes) if changes else None
