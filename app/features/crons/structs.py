"""The wire shapes of crons."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.base.errors import Invalid
from app.engine.structs import ConfigBody, NodeNames, RunCreate, StreamMode

Field = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "end_time",
    "schedule",
    "timezone",
    "created_at",
    "updated_at",
    "user_id",
    "payload",
    "next_run_date",
    "metadata",
    "now",
    "on_run_completed",
    "enabled",
]
SortBy = Literal["cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"]
SortOrder = Literal["asc", "desc"]
Completion = Literal["delete", "keep"]
Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]
Durability = Literal["sync", "async", "exit"]


class Payload(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What each run of a cron is asked for, as ``RunCreate`` has it."""

    input: Any = None
    config: ConfigBody | None = None
    context: dict[str, Any] | None = None
    webhook: str | None = None
    interrupt_before: NodeNames | None = None
    interrupt_after: NodeNames | None = None
    multitask_strategy: Strategy | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Durability | None = None
    checkpoint_during: bool | None = None


class StoredPayload(Payload, kw_only=True, omit_defaults=True):
    """The same as it is stored: with the person who made the cron, on whose behalf its runs are, and with which key."""

    langgraph_auth_user: dict[str, Any] | None = None
    langgraph_auth_user_id: str = ""
    requested_by: str = ""
    key_id: str = ""


class CronCreate(Payload, kw_only=True):
    """A cron to create. ``assistant_id`` is an assistant's UUID or an agent's name, ``schedule`` has five fields.

    Without ``timezone`` (an IANA name) the schedule is read in UTC, as is an ``end_time`` without an offset.
    """

    assistant_id: str
    schedule: str
    timezone: str | None = None
    end_time: datetime | None = None
    enabled: bool | None = None
    on_run_completed: Completion | None = None
    metadata: dict[str, Any] | None = None


class CronPatch(msgspec.Struct, kw_only=True):
    """What to change: ``metadata`` is merged, everything else replaced; what is left out stays."""

    schedule: str | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET
    end_time: datetime | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    on_run_completed: Completion | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    input: Any | msgspec.UnsetType = msgspec.UNSET
    config: ConfigBody | msgspec.UnsetType | None = msgspec.UNSET
    context: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    webhook: str | msgspec.UnsetType | None = msgspec.UNSET
    interrupt_before: NodeNames | msgspec.UnsetType | None = msgspec.UNSET
    interrupt_after: NodeNames | msgspec.UnsetType | None = msgspec.UNSET
    multitask_strategy: Strategy | msgspec.UnsetType | None = msgspec.UNSET
    stream_mode: StreamMode | list[StreamMode] | msgspec.UnsetType | None = msgspec.UNSET
    stream_subgraphs: bool | msgspec.UnsetType | None = msgspec.UNSET
    stream_resumable: bool | msgspec.UnsetType | None = msgspec.UNSET
    durability: Durability | msgspec.UnsetType | None = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are to change."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}


class CronSearch(msgspec.Struct, kw_only=True):
    """Which crons: of an assistant (its UUID or its agent's name), on a thread, with ``metadata`` that they contain."""

    assistant_id: str | None = None
    thread_id: UUID | None = None
    enabled: bool | None = None
    metadata: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    sort_by: SortBy | None = None
    sort_order: SortOrder | None = None
    select: list[Field] | None = None


class Cron(msgspec.Struct, kw_only=True):
    """Runs made at the times of a schedule. ``next_run_date`` is null while none is to come.

    ``thread_id`` is null for runs with threads of their own, which ``on_run_completed`` deletes or keeps.
    """

    cron_id: UUID
    assistant_id: UUID
    thread_id: UUID | None
    on_run_completed: str | None
    end_time: datetime | None
    schedule: str
    timezone: str | None
    created_at: datetime
    updated_at: datetime
    payload: msgspec.Raw
    user_id: str | None = None
    next_run_date: datetime | None
    metadata: Any
    enabled: bool
    now: datetime | msgspec.UnsetType = msgspec.UNSET


def run_of(payload: Payload, assistant_id: str, metadata: dict[str, Any], on_run_completed: str | None) -> RunCreate:
    """The run that a cron makes: what a client would send for it."""
    asked = {name: getattr(payload, name) for name in Payload.__struct_fields__}
    keeps: Literal["keep", "delete"] = "keep" if on_run_completed == "keep" else "delete"
    return RunCreate(**asked, assistant_id=assistant_id, metadata=metadata, on_completion=keeps)


def check_completion(thread_id: UUID | None, on_run_completed: str | None) -> None:
    """Raises ``Invalid`` where there is a choice without anything to choose."""
    if thread_id is not None and on_run_completed is not None:
        raise Invalid(
            "on_run_completed is for crons without a thread: the runs of this one share theirs, which stays.",
            (("/on_run_completed", "the cron has a thread"),),
        )
