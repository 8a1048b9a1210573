"""The store and the threads for graphs: answer the operations that a run requests, within its tenant."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from app.agents.port import RunContext
from app.base import json_scan
from app.base.errors import AgentServiceError, Invalid, LeaseLost
from app.domain.caller import Caller

Value = TypeVar("Value")


def read_operation(op: dict[str, Any], kind: type[Value], what: str) -> Value:
    """Return ``op``, an operation of the kind ``what``, as ``kind``: it comes from a graph's code, unchecked.

    Raises ``Invalid`` or ``BadRequest``.
    """
    subject = f"The {what} {op['do']!r}"
    json_scan.check(msgspec.json.encode(op), subject)
    try:
        return msgspec.convert(op, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{subject} is not valid: {error}.") from error


class Operations(Protocol):
    """Does single operations on the store, or on threads, for a caller."""

    async def operate(self, caller: Caller, op: dict[str, Any], check_lease: Callable[[], None]) -> Any:
        """Do ``op`` and return its result; ``check_lease`` is called before each attempt. Raises ``Invalid``.

        ``agent_service_graphs.store`` and ``agent_service_graphs.threads`` have the forms.
        """
        ...


class GraphStore:
    """The store and the threads as runs of graphs use them."""

    def __init__(self, operations: Operations, threads: Operations) -> None:
        self._operations = operations
        self._threads = threads

    async def answer_threads(self, context: RunContext, op: dict[str, Any]) -> tuple[Any, str]:
        """Do an operation on threads; return its result, or the sentence that says why it was refused."""
        caller = Caller.of(context.tenant_id, context.config.configurable)
        try:
            return await self._threads.operate(caller, op, context.check_lease), ""
        except LeaseLost:
            raise
        except AgentServiceError as error:
            return None, str(error)

    async def answer(self, context: RunContext, ops: Sequence[dict[str, Any]]) -> tuple[list[Any], str]:
        """Do ``ops`` in order; return their results, or the sentence that says why one was refused."""
        caller = Caller.of(context.tenant_id, context.config.configurable)
        try:
            return [await self._operations.operate(caller, op, context.check_lease) for op in ops], ""
        except LeaseLost:
            raise
        except AgentServiceError as error:
            return [], str(error)
