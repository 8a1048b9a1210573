"""The settings by room: what each may hold, in the words of the page ``docs/configuration.md``."""

from app.options.access import AuthSettings, LimitSettings
from app.options.outside import EgressSettings, LlmSettings
from app.options.server import AgentSettings, RunSettings, ServerSettings
from app.options.storage import DatabaseSettings, DocumentSettings, RedisSettings, RetentionSettings
from app.options.telemetry import ObjectiveSettings, TelemetrySettings

__all__ = [
    "AgentSettings",
    "AuthSettings",
    "DatabaseSettings",
    "DocumentSettings",
    "EgressSettings",
    "LimitSettings",
    "LlmSettings",
    "ObjectiveSettings",
    "RedisSettings",
    "RetentionSettings",
    "RunSettings",
    "ServerSettings",
    "TelemetrySettings",
]
