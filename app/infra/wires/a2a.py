"""Wire shapes of A2A 1.0: https://a2a-protocol.org/latest/specification/, section 4 and a2a.proto."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec


class Wire(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """A wire shape: names in camel case, fields without a value left out."""


TaskState = Literal[
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_AUTH_REQUIRED",
]


class Part(Wire):
    """A piece of a message or artifact: one of ``text``, ``raw`` (base64), ``url`` and ``data`` (any JSON)."""

    text: str | None = None
    raw: str | None = None
    url: str | None = None
    data: Any = msgspec.UNSET
    metadata: dict[str, Any] | None = None
    filename: str | None = None
    media_type: str | None = None


class Message(Wire):
    """A message of a user or an agent."""

    message_id: str
    role: Literal["ROLE_USER", "ROLE_AGENT"]
    parts: list[Part]
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None
    reference_task_ids: list[str] | None = None


class Artifact(Wire):
    """What a task has made."""

    artifact_id: str
    parts: list[Part]
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None


class TaskStatus(Wire):
    """State of a task; ``timestamp`` in UTC with milliseconds, empty from peers that send none."""

    state: TaskState
    timestamp: str = ""
    message: Message | None = None


class Task(Wire):
    """A task: a run with the runs that continue it; its context is the thread."""

    id: str
    context_id: str
    status: TaskStatus
    artifacts: list[Artifact] | None = None
    history: list[Message] | None = None
    metadata: dict[str, Any] | None = None


class TaskStatusUpdate(Wire):
    """News of a task's state."""

    task_id: str
    context_id: str
    status: TaskStatus


class TaskArtifactUpdate(Wire):
    """An update of an artifact; ``append``: add its parts to those of before, instead of replacing them."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False


class PushAuthentication(Wire):
    """How the receiver of a notification authenticates it: ``Authorization: {scheme} {credentials}``."""

    scheme: str
    credentials: str | None = None


class PushConfig(Wire):
    """Where news of a task are sent to."""

    url: str
    id: str | None = None
    task_id: str | None = None
    token: str | None = None
    authentication: PushAuthentication | None = None


class SendConfiguration(Wire):
    """How a client wants the answer to a message."""

    accepted_output_modes: list[str] | None = None
    task_push_notification_config: PushConfig | None = None
    history_length: int | None = None
    return_immediately: bool = False


class SendMessageParams(Wire):
    """Parameters of SendMessage and SendStreamingMessage."""

    message: Message
    configuration: SendConfiguration | None = None
    metadata: dict[str, Any] | None = None


class RpcRequest(msgspec.Struct, kw_only=True):
    """A JSON-RPC 2.0 request."""

    method: str
    jsonrpc: Literal["2.0"] = "2.0"
    id: str | int | float | None = None
    params: dict[str, Any] = {}


class SendMessageResult(Wire):
    """Result of SendMessage: a task, or the answer itself."""

    task: Task | None = None
    message: Message | None = None


class TaskParams(Wire):
    """Parameters of GetTask, CancelTask and SubscribeToTask."""

    id: str
    history_length: int | None = None


class PushConfigParams(Wire):
    """Parameters of the methods that get, list and delete push configurations."""

    task_id: str
    id: str | None = None
    page_size: int | None = None
    page_token: str | None = None


class PushConfigPage(Wire):
    """The push configurations of a task, all on one page."""

    configs: list[PushConfig]
    next_page_token: str


class ListTasksParams(Wire):
    """Parameters of ListTasks."""

    context_id: str | None = None
    status: TaskState | None = None
    page_size: int | None = None
    page_token: str = ""
    history_length: int | None = None
    status_timestamp_after: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    include_artifacts: bool = False


class TaskPage(Wire):
    """A page of tasks, the last changed first; ``next_page_token`` is empty on the last one."""

    tasks: list[Task]
    next_page_token: str
    page_size: int
    total_size: int


def timestamp(at: datetime) -> str:
    """Return ``at`` as A2A writes times: ISO 8601 in UTC, with milliseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def uuid_of(text: str) -> UUID | None:
    """Return the UUID that ``text`` is; None if it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None
