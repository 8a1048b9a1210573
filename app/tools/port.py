"""The port to tools: what the agent loop needs to know of a tool, and how it calls one."""

import enum
from collections.abc import Callable
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from app.llm.port import ToolSpec


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


class Memories(Protocol):
    """Texts that outlive threads, by tenant, namespace and key."""

    async def remember(self, tenant_id: UUID, namespace: list[str], key: str, text: str) -> None:
        """Store a text, in place of the one at ``key``."""
        ...

    async def recall(self, tenant_id: UUID, namespace: list[str], text: str, limit: int) -> list[tuple[str, str]]:
        """Keys and texts, those like ``text`` first; the newest first where it is empty."""
        ...

    async def forget(self, tenant_id: UUID, namespace: list[str], key: str) -> None:
        """Remove a text, if it is there."""
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
