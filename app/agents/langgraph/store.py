"""The store for graphs: answers the operations that a run requests, within its tenant."""

from collections.abc import Sequence
from typing import Any, Protocol

from app.agents.port import RunContext
from app.base.errors import AgentServiceError
from app.domain.caller import Caller


class Operations(Protocol):
    """Does single operations on the store, for a caller."""

    async def operate(self, caller: Caller, op: dict[str, Any]) -> Any:
        """Do ``op`` (``agent_service_graphs.store`` has the forms) and return its result. Raises ``Invalid``."""
        ...


class GraphStore:
    """The store as runs of graphs use it."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def answer(self, context: RunContext, ops: Sequence[dict[str, Any]]) -> tuple[list[Any], str]:
        """Do ``ops`` in order; return their results, or the sentence that says why one was refused."""
        context.check_lease()
        caller = Caller.of(context.tenant_id, context.config.configurable)
        try:
            return [await self._operations.operate(caller, op) for op in ops], ""
        except AgentServiceError as error:
            return [], str(error)
