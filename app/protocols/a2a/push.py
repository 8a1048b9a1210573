"""Bodies of push notifications: https://a2a-protocol.org/latest/specification/#433-push-notification-payload"""

from uuid import UUID

import msgspec

from app.base.errors import NotFound
from app.features.runs.chain import RunChain, RunChains
from app.protocols.a2a.tasks import task_of
from app.security.access.structs import Principal


class TaskPayloads:
    """Builds the bodies of notifications, for the service itself."""

    def __init__(self, chains: RunChains) -> None:
        self._chains = chains

    async def body(self, tenant_id: UUID, task_id: UUID, run_id: UUID) -> bytes | None:
        """Return the task as it was when its run ended; None if it was deleted."""
        principal = Principal(tenant_id)
        try:
            chain = await self._chains.get(principal, task_id, requests=False)
        except NotFound:
            return None
        at = next((n for n, run in enumerate(chain.runs) if run.run_id == run_id), None)
        if at is None:
            return None
        runs = list(chain.runs[: at + 1])
        if at + 1 < len(chain.runs):  # answered by now: when it ended, it waited
            runs[-1] = msgspec.structs.replace(runs[-1], waiting=bool(runs[-1].interrupts))
        past = RunChain(runs)
        return msgspec.json.encode({"task": task_of(past, await self._chains.values(principal, past))})
