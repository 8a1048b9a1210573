"""Wire shapes of the protocol: https://github.com/langchain-ai/agent-protocol"""

from typing import Any, Literal
from uuid import UUID

import msgspec

Namespace = list[str]

MAX_SEQ = (1 << 53) - 1
"""The largest integer that JavaScript clients hold exactly."""


class StreamRequest(msgspec.Struct, kw_only=True):
    """Events to send: of ``channels``, in or up to ``depth`` levels below ``namespaces``, after number ``since``.

    ``channels``: values, updates, messages, tools, lifecycle, input, checkpoints, tasks, custom, or ``custom:NAME``.
    """

    channels: list[str]
    namespaces: list[Namespace] | None = None
    depth: int | None = None
    since: int | None = None


class Command(msgspec.Struct, kw_only=True):
    """A command: ``id`` is repeated in its response."""

    id: int
    method: str
    params: dict[str, Any] = {}


class ResponseMeta(msgspec.Struct):
    """``applied_through_seq``: events after this number are results of the command."""

    applied_through_seq: int


class Success(msgspec.Struct, kw_only=True, tag_field="type", tag="success"):
    """The response to a command."""

    id: int
    result: Any
    meta: ResponseMeta | msgspec.UnsetType = msgspec.UNSET


ErrorCode = Literal[
    "invalid_argument",
    "unknown_command",
    "unknown_error",
    "no_such_run",
    "no_such_subscription",
    "no_such_namespace",
    "no_such_interrupt",
    "no_such_checkpoint",
    "permission_denied",
    "not_supported",
]


class Failure(msgspec.Struct, kw_only=True, tag_field="type", tag="error"):
    """The response to a command that failed: ``message`` says what is wrong and what to do."""

    id: int | None
    error: ErrorCode
    message: str


MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]


class RunStart(msgspec.Struct, kw_only=True):
    """Start a run; on a thread with an open question, ``input`` is the answer.

    ``multitask_strategy`` is the protocol's spelling, ``multitaskStrategy`` that of older SDKs.
    """

    assistant_id: str
    input: Any = None
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    multitask_strategy: MultitaskStrategy | None = None
    older_multitask_strategy: MultitaskStrategy | None = msgspec.field(default=None, name="multitaskStrategy")


class Answer(msgspec.Struct):
    """The answer to one interrupt."""

    interrupt_id: str
    response: Any
    namespace: Namespace = []


class InputRespond(msgspec.Struct, kw_only=True):
    """Answer one interrupt, or several (``responses``); ``update`` and ``goto`` as in ``Command`` of LangGraph."""

    interrupt_id: str | None = None
    response: Any = None
    namespace: Namespace = []
    responses: list[Answer] | None = None
    update: Any = None
    goto: Any = None
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class InjectedMessage(msgspec.Struct, kw_only=True):
    """A message to add to the thread."""

    role: Literal["user", "system"]
    content: str
    name: str | None = None


class InputInject(msgspec.Struct, kw_only=True):
    """Continue the thread with a message, once the run in progress has ended."""

    message: InjectedMessage
    namespace: Namespace = []


class StateGet(msgspec.Struct, kw_only=True):
    """Read the thread's values; ``keys``: only some of them."""

    namespace: Namespace = []
    keys: list[str] | None = None


class ListCheckpoints(msgspec.Struct, kw_only=True):
    """List the thread's checkpoints, newest first, before the checkpoint ``before``."""

    namespace: Namespace = []
    limit: int = 10
    before: str | None = None


class StateFork(msgspec.Struct, kw_only=True):
    """Start a run from a checkpoint."""

    checkpoint_id: str
    input: Any = None
    config: dict[str, Any] | None = None


class GetTree(msgspec.Struct, kw_only=True):
    """Describe a run (default: the newest) and its subgraphs."""

    run_id: UUID | None = None
