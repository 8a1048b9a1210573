"""Wire shapes of the system routes."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

UsagePart = Literal["day", "agent", "requested_by", "model"]


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


class Usage(msgspec.Struct, kw_only=True):
    """Usage of models; only what it is summed by has ``day``, ``agent``, ``requested_by``, ``key_name``, ``model``."""

    day: date | msgspec.UnsetType = msgspec.UNSET
    agent: str | msgspec.UnsetType = msgspec.UNSET
    requested_by: str | msgspec.UnsetType = msgspec.UNSET
    key_name: str | msgspec.UnsetType | None = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    runs: int
    failed: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    dollars: float


class ModelPrice(msgspec.Struct, kw_only=True):
    """Dollars for a million tokens of the models whose names begin with ``model``."""

    model: str
    input: float
    output: float


class QueueTotals(msgspec.Struct, kw_only=True):
    """Runs of ``agent``: due and ``pending``, ``scheduled`` for later, ``running``; since when the oldest is due."""

    agent: str
    pending: int
    scheduled: int
    running: int
    oldest_due: datetime | None


class QueueState(msgspec.Struct, kw_only=True):
    """A tenant's queue, in all and by agent."""

    pending: int
    scheduled: int
    running: int
    oldest_due: datetime | None
    agents: list[QueueTotals]


class WorkerRuns(msgspec.Struct, kw_only=True):
    """A process that holds runs; those of one ``server`` have that in common."""

    worker: UUID
    server: str
    runs: int
    oldest_started_at: datetime | None
    lease_until: datetime | None


class Workers(msgspec.Struct, kw_only=True):
    """Worker processes of the server that answers, how many of them live, and the processes that hold runs."""

    processes: int
    alive: int
    holders: list[WorkerRuns]


class Setting(msgspec.Struct, kw_only=True):
    """A setting in effect: the value of the variable ``name``, masked if it is ``secret``."""

    name: str
    group: str
    meaning: str
    value: str | int | float | bool | None
    is_default: bool
    secret: bool
