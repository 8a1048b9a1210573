"""The settings by area: what each may hold, and its meaning in ``docs/reference/configuration.md``.

- ``access``: settings of authentication and limits
- ``declaration``: declaration of a setting
- ``environment``: read the environment once into frozen structs
- ``external``: settings of outgoing calls
- ``server``: settings of the server and its runs
- ``storage``: settings of the database, retention, Redis and documents
- ``telemetry``: telemetry settings
"""

from app.infra.settings.access import AuthSettings, LimitSettings
from app.infra.settings.external import EgressSettings, LlmSettings
from app.infra.settings.server import AgentSettings, RunSettings, ServerSettings
from app.infra.settings.storage import DatabaseSettings, DocumentSettings, RedisSettings, RetentionSettings
from app.infra.settings.telemetry import ObjectiveSettings, TelemetrySettings

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
