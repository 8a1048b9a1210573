"""What the system routes answer."""

from typing import Any

import msgspec


class Health(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``healthy``, ``degraded`` (still does its job) or ``unhealthy``; ``checks`` per dependency."""

    status: str
    checks: dict[str, dict[str, Any]] = {}
    latency_ms: float = 0.0
    version: str = ""


class Host(msgspec.Struct, kw_only=True, frozen=True):
    """Where this server runs. LangGraph's own platform fills the rest; its clients expect the names."""

    kind: str = "self-hosted"
    project_id: None = None
    host_revision_id: None = None
    revision_id: None = None
    tenant_id: None = None


class Info(msgspec.Struct, kw_only=True):
    """What this server is, in the shape that LangGraph clients read."""

    version: str
    langgraph_py_version: None = None
    flags: dict[str, bool]
    host: Host = Host()
