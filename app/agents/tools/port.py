"""The port to tools: what the agent loop needs to know of a tool, and how it calls one."""

import enum
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from app.domain.caller import Caller
from app.providers.llm.port import ToolSpec


class ToolClass(enum.StrEnum):
    """What may happen to a call whose outcome a crash left unknown (docs/guarantees)."""

    READ_ONLY = "read_only"
    TRANSACTIONAL = "transactional"
    IDEMPOTENT = "idempotent"
    RECONCILABLE = "reconcilable"
    UNSAFE = "unsafe"


class NeedsAnswer(BaseException):
    """Stops the work that needs a person's answer first; it starts from its beginning once the answer is there.

    ``value`` is the question, any JSON. Not an ``Exception``, so that a tool that expects errors does not swallow it.
    """

    def __init__(self, value: Any) -> None:
        super().__init__("a person is asked")
        self.value = value


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool may know of the run that calls it.

    ``idempotency_key`` is the same for every attempt of one call. ``emit`` sends a JSON value to ``custom`` streams,
    from any thread, for as long as the call runs. ``value`` reads a channel of the thread's values, decoded, or gives
    None. ``interrupt`` asks a person (any JSON) and returns the answer; until it is there the call stops, and later
    starts anew from its beginning, so ask before anything that must not happen twice.
    """

    tenant_id: str
    thread_id: str
    run_id: str
    call_id: str
    idempotency_key: str
    emit: Callable[[Any], None]
    value: Callable[[str], Any]
    interrupt: Callable[[Any], Any]
    configurable: dict[str, Any] = {}

    @property
    def caller(self) -> Caller:
        """For whom the tool works."""
        return Caller.of(UUID(self.tenant_id), self.configurable)


Fields = bool | list[str] | None
"""Which fields of a value searches look at: False for none, None for those that the agents file says."""


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the long-term memory; ``score`` where a question has found it."""

    namespace: list[str]
    key: str
    value: dict[str, Any]
    score: float | None = None


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document that answers a question, and what a citation of it needs.

    ``text`` is the document's text from character ``start`` to before ``end``; it is the chunk number ``chunk``, which
    begins on ``page`` (of a PDF, from 1).
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
    """The long-term memory: values at keys in namespaces, and documents; of each tenant for itself.

    A person reaches what its own requests would reach. All raise ``Invalid``, and ``Forbidden`` or ``Refused`` for
    what the operator's handlers do not let the person do.
    """

    async def put(
        self, caller: Caller, namespace: list[str], key: str, value: Mapping[str, Any], index: Fields = None
    ) -> None:
        """Store ``value``, in place of what is there."""
        ...

    async def get(self, caller: Caller, namespace: list[str], key: str) -> StoredItem | None:
        """What is there."""
        ...

    async def delete(self, caller: Caller, namespace: list[str], key: str) -> None:
        """Remove what is there, if anything is."""
        ...

    async def search(
        self,
        caller: Caller,
        prefix: list[str],
        query: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Items at and below ``prefix``: the best first, or the newest without a ``query``."""
        ...

    async def passages(
        self,
        caller: Caller,
        query: str,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """What documents say that answers ``query``, the best first: in one collection, or in all."""
        ...


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool gave back: ``content`` is what the model reads; ``artifact`` stays with the message for clients.

    ``update`` changes the thread's values (channel → value) in the same commit as the step: exactly once.
    """

    content: str | list[dict[str, Any]]
    artifact: Any = None
    status: Literal["success", "error"] = "success"
    update: dict[str, Any] = {}


class Tool(Protocol):
    """A callable tool. ``call`` gets arguments that already passed its schema and returns, or raises for an error."""

    spec: ToolSpec
    tool_class: ToolClass
    timeout: float

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run the tool once. ``timeout`` (seconds) is enforced by the caller."""
        ...

    async def lookup(self, key: str) -> ToolResult | None:
        """What the call with the idempotency ``key`` gave; None when it did not happen. For ``reconcilable`` tools.

        Raises anything when that cannot be told.
        """
        ...
