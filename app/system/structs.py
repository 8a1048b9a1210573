"""What the system routes answer."""

from typing import Any

import msgspec


class Health(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``healthy``, ``degraded`` (still does its job) or ``unhealthy``; ``checks`` per dependency."""

    status: str
    checks: dict[str, dict[str, Any]] = {}
    latency_ms: float = 0.0
    version: str = ""


class Info(msgspec.Struct, kw_only=True):
    """What this server is, in the shape that LangGraph clients read."""

    version: str
    flags: dict[str, bool]
    host: dict[str, Any]
    langgraph_py_version: None = None
