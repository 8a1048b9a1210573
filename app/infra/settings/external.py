"""Settings of outgoing calls: model providers, and addresses that users name."""

from typing import Annotated

import msgspec

from app.infra.secrets.secret import Secret
from app.infra.settings.declaration import HTTP, is_


class LlmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Models"""

    default_model: Annotated[
        str,
        is_(
            "AGENT_DEFAULT_MODEL",
            "The model of agents that do not name one. Unset: chosen by the keys that are set, else `scripted:demo`.",
            pattern="^[^:]+:.+$",
            examples=["openai:gpt-5-mini"],
        ),
    ] = ""
    openai_api_key: Annotated[Secret | None, is_("OPENAI_API_KEY", "The key of the `openai` vendor.")] = None
    openai_api_key_secondary: Annotated[
        Secret | None, is_("OPENAI_API_KEY_SECONDARY", "Tried once if the first key is refused: for rotation.")
    ] = None
    openai_base_url: Annotated[
        str,
        is_(
            "OPENAI_BASE_URL",
            "Any server with the Chat Completions API (Ollama, vLLM, …). Without a key or model: its "
            "first listed model is used.",
            examples=["http://localhost:11434/v1"],
            **HTTP,
        ),
    ] = ""
    anthropic_api_key: Annotated[Secret | None, is_("ANTHROPIC_API_KEY", "The key of the `anthropic` vendor.")] = None
    anthropic_api_key_secondary: Annotated[
        Secret | None, is_("ANTHROPIC_API_KEY_SECONDARY", "Tried once if the first key is refused: for rotation.")
    ] = None
    anthropic_base_url: Annotated[
        str,
        is_("ANTHROPIC_BASE_URL", "Any server with the Messages API.", examples=["https://api.anthropic.com"], **HTTP),
    ] = ""


class EgressSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to addresses that users name"""

    allow: Annotated[
        str,
        is_(
            "AGENT_EGRESS_ALLOW",
            "Private hosts, addresses and networks that webhooks may reach, comma-separated.",
            examples=["hooks.internal,10.1.0.0/16"],
        ),
    ] = ""
    webhook_secret: Annotated[
        Secret | None,
        is_("AGENT_WEBHOOK_SECRET", "Signs webhooks (Standard Webhooks). Unset: webhooks are not signed."),
    ] = None
    webhook_secret_secondary: Annotated[
        Secret | None, is_("AGENT_WEBHOOK_SECRET_SECONDARY", "A second signature of webhooks: for rotation.")
    ] = None
