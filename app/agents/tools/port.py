"""The tool port: the interface of a tool, its context and result, and the long-term memory that tools use."""

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

import msgspec

from app.domain.caller import Caller
from app.providers.llm.port import ToolSpec


class ToolClass(enum.StrEnum):
    """How to handle a call whose outcome a crash left unknown (docs/explanation/reliability.md)."""

    READ_ONLY = "read_only"
    TRANSACTIONAL = "transactional"
    IDEMPOTENT = "idempotent"
    RECONCILABLE = "reconcilable"
    UNSAFE = "unsafe"


SAFE_TO_REPEAT = frozenset({ToolClass.READ_ONLY, ToolClass.IDEMPOTENT, ToolClass.TRANSACTIONAL})
"""Reads change nothing, idempotency keys deduplicate repetitions, and changes of values commit with their step."""


class NeedsAnswer(BaseException):
    """Stop work that needs a person's answer; it restarts from its beginning once there is an answer.

    ``value`` is the question, any JSON. Not an ``Exception``, so that a tool's own error handling does not swallow it.
    """

    def __init__(self, value: Any) -> None:
        super().__init__("a person is asked")
        self.value = value


class Interrupter(Protocol):
    """Asks a person."""

    def __call__(self, value: Any, expects: dict[str, Any] | None = None, name: str = "", /) -> Any:
        """Return the answer to the question ``value``. Raises ``NeedsAnswer`` if there is none yet."""
        ...


async def _forget(_value: Any) -> None:
    """Keep nothing: for contexts without a run."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """The context of a tool call: ids of its run, and access to streams, values and people.

    ``idempotency_key`` is the same for every attempt of one call. ``emit`` sends a JSON value to ``custom`` streams,
    from any thread, while the call runs. ``value`` returns a channel of the thread's values, decoded, or None.
    ``interrupt`` asks a person (any JSON) and returns the answer; without one the call stops and later restarts from
    its beginning, so ask before any side effect that must not happen twice. It takes the JSON Schema of an answer, and
    a name for the question where the order of questions is not the same in every attempt.

    ``keep`` makes a JSON value durable for later attempts of this call, which find it in ``kept``: what identifies work
    that another system does for it. A call that has kept something is not reviewed after a crash: it continues.
    ``cancelled``: whether a client has cancelled the run, for a tool that is cancelled itself: else another process
    continues with it.
    """

    tenant_id: str
    thread_id: str
    run_id: str
    call_id: str
    idempotency_key: str
    emit: Callable[[Any], None]
    value: Callable[[str], Any]
    interrupt: Interrupter
    keep: Callable[[Any], Awaitable[None]] = _forget
    kept: Any = None
    cancelled: Callable[[], bool] = bool
    configurable: dict[str, Any] = {}

    @property
    def caller(self) -> Caller:
        """The caller on whose behalf the tool runs."""
        return Caller.of(UUID(self.tenant_id), self.configurable)


Fields = bool | list[str] | None
"""Indexed fields of a value: False for none, None for those configured in the agents file."""


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the long-term memory; ``score`` if a query found it."""

    namespace: list[str]
    key: str
    value: dict[str, Any]
    score: float | None = None


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a document that matches a query, with its citation data.

    ``text`` is the document's text from character ``start`` to before ``end``; it is chunk number ``chunk``, which
    starts on ``page`` (of a PDF, from 1).
    """

    document_id: UUID
    title: str
    collection: str
    chunk: int
    start: int
    end: int
    page: int | None
    text: str
    score: float
    metadata: dict[str, Any]


class LongTerm(Protocol):
    """The long-term memory: values at keys in namespaces, and documents; isolated by tenant.

    A user has the same access as through the API. All methods raise ``Invalid``, and ``Forbidden`` or ``Refused`` if
    the operator's handlers deny the operation.
    """

    async def put(
        self, caller: Caller, namespace: list[str], key: str, value: Mapping[str, Any], index: Fields = None
    ) -> None:
        """Store ``value``, replacing an existing item."""
        ...

    async def get(self, caller: Caller, namespace: list[str], key: str) -> StoredItem | None:
        """Return the item, or None."""
        ...

    async def delete(self, caller: Caller, namespace: list[str], key: str) -> None:
        """Delete the item if it exists."""
        ...

    async def search(
        self,
        caller: Caller,
        prefix: list[str],
        query: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Return items at and below ``prefix``: best match first, or newest first without a ``query``."""
        ...

    async def passages(
        self,
        caller: Caller,
        query: str,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """Return passages that match ``query``, best first: in one collection, or in all."""
        ...


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """A tool's result: ``content`` for the model; ``artifact`` is stored with the message for clients.

    ``update`` changes the thread's values (channel → value) in the same commit as the step: exactly once.
    """

    content: str | list[dict[str, Any]]
    artifact: Any = None
    status: Literal["success", "error"] = "success"
    update: dict[str, Any] = {}


class Tool(Protocol):
    """A callable tool. ``call`` gets arguments that match its schema; it returns a result or raises an error."""

    tool_class: ToolClass
    timeout: float

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it. Its name and parameters do not change; its description may."""
        ...

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run the tool once. ``timeout`` (seconds) is enforced by the caller."""
        ...

    async def lookup(self, key: str) -> ToolResult | None:
        """Return the result of the call with the idempotency ``key``; None if it was not made.

        For ``reconcilable`` tools. Raises any exception if the outcome cannot be determined.
        """
        ...


@runtime_checkable
class AgentTool(Protocol):
    """A tool that is another agent."""

    is_agent: bool


class ToolSource(Protocol):
    """Tools that may change while the process runs; ``version`` grows when they do."""

    version: int

    @property
    def problem(self) -> str:
        """Why none of the tools can be used now; empty if they can."""
        ...

    def tools(self) -> Sequence[Tool]:
        """Return the tools that can be used now."""
        ...

    def refusal(self, name: str) -> str:
        """Return why the tool ``name`` cannot be used; empty for a tool that is not refused."""
        ...
