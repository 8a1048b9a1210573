"""The run of a thread that is in progress: find it and stop it, though it may end at any moment."""

from uuid import UUID

from app.base.errors import NotFound
from app.engine.structs import Run
from app.protocols.gateway import ProtocolGateway
from app.security.access.structs import Principal


async def live_run(gateway: ProtocolGateway, principal: Principal, thread_id: UUID) -> Run | None:
    """Return the run in progress, or the first that waits for its turn; None without one, or without the thread."""
    try:
        found = await gateway.runs.current(principal, thread_id)
    except NotFound:
        return None
    return found.run if found is not None and found.is_live else None


async def stop_run(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, run_id: UUID, *, wait: bool = False
) -> bool:
    """Cancel a run that was in progress; with ``wait``, return once it has ended. False if it has ended by itself."""
    try:
        await gateway.runs.cancel(principal, thread_id, run_id, action="interrupt", wait=wait)
    except NotFound:
        return False
    return True
