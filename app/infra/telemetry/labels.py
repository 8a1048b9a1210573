"""Labels with known values, which alert rules are checked against (``app.cli.doctor.label_values``)."""

from typing import Self

from app.base.errors import LeaseLost, ModelError, Unavailable

CANCELLED = "cancelled"


class EnumLabel(str):
    """The name of a label with its ``values``; the empty value stands for a missing label."""

    __slots__ = ("values",)
    values: tuple[str, ...]

    def __new__(cls, name: str, *values: str) -> Self:
        """Create a label called ``name``."""
        label = super().__new__(cls, name)
        label.values = values
        return label


METHOD = EnumLabel("http.request.method", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER")
HTTP_STATUS = EnumLabel("http.response.status_code", *map(str, range(100, 600)))
POOL = EnumLabel("db.client.connection.pool.name", "requests", "engine", "tenants")
POOL_STATE = EnumLabel("db.client.connection.state", "used", "idle")
CPU_MODE = EnumLabel("cpu.mode", "user", "system")
SIGNAL = EnumLabel("signal", "traces", "metrics")
PROTOCOL = EnumLabel(
    "protocol",
    "a2a",
    "ag-ui",
    "ai-sdk",
    "copilotkit",
    "langgraph.v2",
    "mcp",
    "mcp.admin",
    "openai.chat",
    "openai.conversations",
    "openai.responses",
)
RESPONSE = EnumLabel("outcome", "success", "refused", "failed", "disconnected")

SLO = EnumLabel("slo", "availability", "first_token", "runs", "checkpoints")
USE = EnumLabel("use", "bus", "cache")
STATE = EnumLabel("state", "used", "limit")
PART = EnumLabel("part", "database", "checkpoints", "runs", "transitions", "records", "events", "store")
BUDGET = EnumLabel("budget", "cost", "storage")

OPERATION = EnumLabel("gen_ai.operation.name", "chat")
TOKEN_TYPE = EnumLabel("gen_ai.token.type", "input", "output")
MODEL_TROUBLE = EnumLabel("error.type", "", *sorted(kind.__name__ for kind in ModelError.__subclasses__()))
TOOL_TROUBLE = EnumLabel("error.type", "", CANCELLED, "tool_error")
STEP_TROUBLE = EnumLabel("error.type", "", CANCELLED, LeaseLost.__name__, Unavailable.__name__)

RUN_STATUS = EnumLabel("status", "success", "error", "timeout", "interrupted", "handover", "lost")
WEBHOOK = EnumLabel("outcome", "delivered", "retried", "dead")
LIMIT = EnumLabel("limit", "llm", "key", "tenant", "bytes", "tokens", "cost", "runs", "queued", "streams", "storage")
SECRET = EnumLabel("outcome", "rotated", "refused")
TOOL = EnumLabel(
    "outcome",
    "success",
    "error",
    "timeout",
    "unknown",
    "invalid",
    "rejected",
    "answered",
    "failed",
    "review_done",
    "review_retry",
    "review_abort",
)
CACHE = EnumLabel("cache", "embeddings", "answers")
CACHE_OUTCOME = EnumLabel("outcome", "hit", "miss", "shared", "unusable", "unavailable")
