"""Wire shapes of the system routes."""

from typing import Any

import msgspec


class Health(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``healthy``, ``degraded`` (still works) or ``unhealthy``; ``checks`` by dependency."""

    status: str
    checks: dict[str, dict[str, Any]] = {}
    latency_ms: float = 0.0
    version: str = ""


class Host(msgspec.Struct, kw_only=True, frozen=True):
    """Where this server runs. LangGraph clients expect all fields."""

    kind: str = "self-hosted"
    project_id: None = None
    host_revision_id: None = None
    revision_id: None = None
    tenant_id: None = None


class Info(msgspec.Struct, kw_only=True):
    """Version and features of this server, in the shape that LangGraph clients read."""

    version: str
    langgraph_py_version: None = None
    flags: dict[str, bool]
    host: Host = Host()
