"""Wire shapes of requests: https://modelcontextprotocol.io/specification/2026-07-28/schema

What the server sends is built as plain dictionaries, since most members of a result are optional.
"""

from typing import Any, Literal

import msgspec

META = "io.modelcontextprotocol/"
"""Prefix of the protocol's own members of ``_meta``."""

TASKS = "io.modelcontextprotocol/tasks"
"""The extension by which a long call becomes a task."""

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


class RpcMessage(msgspec.Struct, kw_only=True):
    """A JSON-RPC 2.0 message of a client: a request, a notification (no ``id``), or a response (no ``method``)."""

    jsonrpc: Literal["2.0"]
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] = {}
    result: Any = None
    error: dict[str, Any] | None = None


class InitializeParams(msgspec.Struct, kw_only=True):
    """What a client of 2025-11-25 begins a session with."""

    protocol_version: str = msgspec.field(name="protocolVersion")
    capabilities: dict[str, Any] = {}


class NameParams(msgspec.Struct, kw_only=True):
    """A call of a tool, or a request for a prompt. ``input_responses`` answer what ``request_state`` stands for."""

    name: str
    arguments: dict[str, Any] | None = None
    input_responses: Any = msgspec.field(default=None, name="inputResponses")
    request_state: str | None = msgspec.field(default=None, name="requestState")


class UriParams(msgspec.Struct, kw_only=True):
    """The URI of a resource."""

    uri: str


class ListParams(msgspec.Struct, kw_only=True):
    """A page of a list, by the ``nextCursor`` of the page before."""

    cursor: str | None = None


class LevelParams(msgspec.Struct, kw_only=True):
    """The least severe level of log messages that a client of 2025-11-25 wants."""

    level: LogLevel


class CancelledParams(msgspec.Struct, kw_only=True):
    """The request that a client of 2025-11-25 cancels."""

    request_id: str | int | None = msgspec.field(default=None, name="requestId")


class Reference(msgspec.Struct, kw_only=True):
    """What a completion is for: a prompt by ``name``, or a resource template by ``uri``."""

    type: Literal["ref/prompt", "ref/resource"]
    name: str = ""
    uri: str = ""


class Argument(msgspec.Struct, kw_only=True):
    """An argument, and what its user has typed so far."""

    name: str
    value: str


class CompleteParams(msgspec.Struct, kw_only=True):
    """A request for completions of an argument."""

    ref: Reference
    argument: Argument


class TaskParams(msgspec.Struct, kw_only=True):
    """A task, and answers to the questions that it waits for."""

    task_id: str = msgspec.field(name="taskId")
    input_responses: dict[str, Any] = msgspec.field(default_factory=dict, name="inputResponses")


class Notifications(msgspec.Struct, kw_only=True):
    """What a client wants to be notified of."""

    tools_list_changed: bool | None = msgspec.field(default=None, name="toolsListChanged")
    prompts_list_changed: bool | None = msgspec.field(default=None, name="promptsListChanged")
    resources_list_changed: bool | None = msgspec.field(default=None, name="resourcesListChanged")
    resource_subscriptions: list[str] | None = msgspec.field(default=None, name="resourceSubscriptions")
    task_ids: list[str] | None = msgspec.field(default=None, name="taskIds")


class ListenParams(msgspec.Struct, kw_only=True):
    """A stream of notifications."""

    notifications: Notifications
