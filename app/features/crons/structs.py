"""The wire shapes of crons."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeVar, cast, get_type_hints
from uuid import UUID

import msgspec

from app.base.errors import Invalid
from app.engine.structs import RunCreate, RunParameters

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
T = TypeVar("T", bound=msgspec.Struct)


class Payload(RunParameters, frozen=True, kw_only=True, omit_defaults=True):
    """The request of each run of a cron; fields as in ``RunCreate``."""

    checkpoint_during: bool | None = None


class StoredPayload(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """A stored payload, with the user that its runs act for and the key that created it."""

    langgraph_auth_user: dict[str, Any] | None = None
    langgraph_auth_user_id: str = ""
    requested_by: str = ""
    key_id: str = ""


class CronCreate(Payload, frozen=True, kw_only=True):
    """A cron to create. ``assistant_id`` is an assistant's UUID or an agent's name, ``schedule`` has five fields.

    ``timezone`` (an IANA name) defaults to UTC, as does the offset of ``end_time``.
    """

    assistant_id: str
    schedule: str
    timezone: str | None = None
    end_time: datetime | None = None
    enabled: bool | None = None
    on_run_completed: Completion | None = None
    metadata: dict[str, Any] | None = None


def _changing(fields_of: type[msgspec.Struct]) -> Callable[[type[T]], type[T]]:
    """Add the fields of a struct to a patch, where each may be omitted (``UNSET``)."""
    fields: list[tuple[str, Any, Any]] = [
        (name, hint | msgspec.UnsetType, msgspec.UNSET)
        for name, hint in get_type_hints(fields_of, include_extras=True).items()
        if name in fields_of.__struct_fields__
    ]

    def add(patch: type[T]) -> type[T]:
        """Return ``patch`` with the fields."""
        about = {"__doc__": patch.__doc__}
        made = msgspec.defstruct(
            patch.__name__, fields, bases=(patch,), module=patch.__module__, namespace=about, kw_only=True
        )
        return cast(type[T], made)

    return add


@_changing(RunParameters)
class CronPatch(msgspec.Struct, kw_only=True):
    """Changes of a cron: ``metadata`` is merged, other fields are replaced, omitted ones stay."""

    schedule: str | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET
    end_time: datetime | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    on_run_completed: Completion | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        """Return the fields to change."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}


class CronSearch(msgspec.Struct, kw_only=True):
    """Filters of a cron search: assistant (UUID or agent's name), thread, contained ``metadata``."""

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
    """Runs at the times of a schedule. ``next_run_date`` is null if no run is due.

    ``thread_id`` is null if each run gets a thread of its own, which ``on_run_completed`` deletes or keeps.
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
    """Return the request of a cron's run, as a client would send it."""
    fields = {name: getattr(payload, name) for name in Payload.__struct_fields__}
    on_completion: Literal["keep", "delete"] = "keep" if on_run_completed == "keep" else "delete"
    return RunCreate(**fields, assistant_id=assistant_id, metadata=metadata, on_completion=on_completion)


def check_completion(thread_id: UUID | None, on_run_completed: str | None) -> None:
    """Reject ``on_run_completed`` for a cron on a thread. Raises ``Invalid``."""
    if thread_id is not None and on_run_completed is not None:
        raise Invalid(
            "on_run_completed is for crons without a thread: remove it, the thread of this cron is always kept.",
            (("/on_run_completed", "the cron has a thread"),),
        )
