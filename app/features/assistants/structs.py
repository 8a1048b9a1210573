"""The wire shapes of assistants."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

Field = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "metadata",
    "version",
    "created_at",
    "updated_at",
]
SortBy = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]
SortOrder = Literal["asc", "desc"]


class AssistantVersion(msgspec.Struct, kw_only=True):
    """A version of an assistant; ``graph_id`` is the agent's name."""

    assistant_id: UUID
    version: int
    graph_id: str
    config: Any
    context: Any
    metadata: Any
    created_at: datetime
    name: str
    description: str | None


class Assistant(AssistantVersion, kw_only=True):
    """A configured agent: the latest version of an assistant; ``graph_id`` is the agent's name."""

    updated_at: datetime


class AssistantPatch(msgspec.Struct, kw_only=True):
    """Changes of an assistant: ``metadata`` is merged, other fields are replaced."""

    graph_id: str | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None


class AssistantCreate(AssistantPatch, kw_only=True):
    """An assistant to create for the agent ``graph_id``."""

    graph_id: str
    assistant_id: UUID | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class AssistantSearch(msgspec.Struct, kw_only=True):
    """Filters of an assistant search: contained ``metadata``, agent, part of the name."""

    metadata: dict[str, Any] | None = None
    graph_id: str | None = None
    name: str | None = None
    limit: int = 10
    offset: int = 0
    sort_by: SortBy | None = None
    sort_order: SortOrder | None = None
    select: list[Field] | None = None


class VersionSearch(msgspec.Struct, kw_only=True):
    """Filters of a version search."""

    metadata: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0


class LatestVersion(msgspec.Struct, kw_only=True):
    """The version to make the latest."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
