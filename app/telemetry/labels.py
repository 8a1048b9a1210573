"""Labels whose values are known beforehand: what a rule may compare them with (``app.cli.doctor.matching``)."""

from typing import Self

from app.base.errors import LeaseLost, ModelError, Unavailable


class OneOf(str):
    """The name of a label, and the ``values`` that are counted under it; empty stands for a label that is not there."""

    __slots__ = ("values",)
    values: tuple[str, ...]

    def __new__(cls, name: str, *values: str) -> Self:
        """A label called ``name``."""
        label = super().__new__(cls, name)
        label.values = values
        return label


CANCELLED = "cancelled"

METHOD = OneOf("http.request.method", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER")
HTTP_STATUS = OneOf("http.response.status_code", *map(str, range(100, 600)))
POOL = OneOf("db.client.connection.pool.name", "requests", "engine")
POOL_STATE = OneOf("db.client.connection.state", "used", "idle")
CPU_MODE = OneOf("cpu.mode", "user", "system")
SIGNAL = OneOf("signal", "traces", "metrics")

SLO = OneOf("slo", "availability", "first_token", "runs", "checkpoints")
USE = OneOf("use", "bus", "cache")
STATE = OneOf("state", "used", "limit")
PART = OneOf("part", "database", "checkpoints", "runs", "transitions", "records", "events", "store")
BUDGET = OneOf("budget", "cost", "storage")

OPERATION = OneOf("gen_ai.operation.name", "chat")
TOKEN_TYPE = OneOf("gen_ai.token.type", "input", "output")
MODEL_TROUBLE = OneOf("error.type", "", *sorted(kind.__name__ for kind in ModelError.__subclasses__()))
TOOL_TROUBLE = OneOf("error.type", "", CANCELLED, "tool_error")
STEP_TROUBLE = OneOf("error.type", "", CANCELLED, LeaseLost.__name__, Unavailable.__name__)

RUN_STATUS = OneOf("status", "success", "error", "timeout", "interrupted", "handover", "lost")
WEBHOOK = OneOf("outcome", "delivered", "retried", "dead")
LIMIT = OneOf("limit", "llm", "key", "tenant", "bytes", "tokens", "cost", "runs", "queued", "streams", "storage")
SECRET = OneOf("outcome", "rotated", "refused")
TOOL = OneOf(
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
CACHE = OneOf("cache", "embeddings", "answers")
CACHE_OUTCOME = OneOf("outcome", "hit", "miss", "shared", "unusable", "unavailable")
