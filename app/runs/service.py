"""What clients do with runs."""

from collections.abc import AsyncIterator, Collection
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.access.structs import Principal
from app.agents.port import Agents
from app.assistants.service import AssistantService
from app.base.errors import BadRequest, Conflict, NotFound, Unavailable
from app.base.ids import new_id
from app.bus.feed import START, EventId
from app.db.engine import Database
from app.domain.lifecycle import RunStatus
from app.runs import queries
from app.runs.claims import Claims
from app.runs.entries import Accept, Claimed
from app.runs.streams import RunStreams
from app.runs.structs import Run, RunCreate, RunRequest
from app.runs.supervisor import Supervisor

encode = msgspec.json.Encoder().encode


class RunService:
    """Creates runs and follows them. A run goes on whatever becomes of the request that made it."""

    def __init__(
        self,
        database: Database,
        claims: Claims,
        supervisor: Supervisor,
        assistants: AssistantService,
        agents: Agents,
    ) -> None:
        self._database = database
        self._claims = claims
        self._supervisor = supervisor
        self._assistants = assistants
        self._agents = agents
        self._streams = RunStreams(database, supervisor)

    async def create(self, principal: Principal, thread_id: UUID | None, body: RunCreate) -> Claimed:
        """Accept a run: committed when this returns, and live here if its turn has come.

        Without ``thread_id`` the run gets a thread of its own, which goes with it unless ``on_completion`` is ``keep``.
        Raises ``Invalid`` for an input that the agent does not take, ``NotFound``, ``Conflict``, ``Unavailable``.
        """
        if self._supervisor.draining:
            raise Unavailable("The server is stopping; try again.", retry_after=1)
        body.check()
        assistant_id, agent_name = await self._assistants.resolve(principal.tenant_id, body.assistant_id)
        run_id = new_id()
        agent = self._agents.get(agent_name)
        if agent is not None and body.input is not None:
            agent.read_input(body.input, run_id)
        if thread_id is None and body.command is not None:
            raise BadRequest("You must provide a thread_id when resuming.")
        temporary = thread_id is None and body.on_completion != "keep"
        delay = body.after_seconds or 0.0
        claimed = await self._claims.accept(
            Accept(
                tenant_id=principal.tenant_id,
                thread_id=thread_id or new_id(),
                run_id=run_id,
                assistant_id=assistant_id,
                request=encode(RunRequest.of(body, temporary=temporary)),
                metadata=encode(body.metadata or {}),
                strategy=body.multitask_strategy or "enqueue",
                create_thread=thread_id is None or body.if_not_exists == "create",
                temporary=temporary,
                owner=self._claims.owner,
                delay=delay,
            )
        )
        if claimed.started:
            self._supervisor.launch(claimed)
        elif delay:
            self._supervisor.claim_later(delay, (claimed.tenant_id, claimed.thread_id))
        return claimed

    async def get(self, principal: Principal, thread_id: UUID, run_id: UUID) -> Run:
        """One run of a thread. Raises ``NotFound``."""
        async with self._database.reading(principal.tenant_id) as session:
            row = await queries.get(session, principal.tenant_id, thread_id, run_id)
        if row is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return _shown(row)

    async def list(
        self, principal: Principal, thread_id: UUID, *, status: str | None, limit: int, offset: int
    ) -> list[Run]:
        """The runs of a thread, newest first. Raises ``NotFound`` for an unknown thread."""
        async with self._database.reading(principal.tenant_id) as session:
            rows = await queries.listed(
                session, principal.tenant_id, thread_id, status=status, limit=limit, offset=offset
            )
            if not rows and not await queries.thread_exists(session, principal.tenant_id, thread_id):
                raise NotFound(f"Thread with ID {thread_id} not found")
        return [_shown(row) for row in rows]

    async def result(self, principal: Principal, thread_id: UUID | None, run_id: UUID) -> bytes:
        """The run's final values (or its error) as JSON, once it has ended."""
        return await self._streams.result(principal.tenant_id, thread_id, run_id)

    def stream(
        self,
        principal: Principal,
        run_id: UUID,
        *,
        after: EventId = START,
        modes: Collection[str] | None = None,
    ) -> AsyncIterator[bytes]:
        """The run's frames after ``after``, until it ends."""
        return self._streams.follow(principal.tenant_id, run_id, after=after, modes=modes)

    async def cancel(self, principal: Principal, thread_id: UUID, run_id: UUID, *, action: str, wait: bool) -> None:
        """Stop a run; with ``wait``, return once it has ended. Raises ``NotFound`` when it is unknown or has ended."""
        run = await self.get(principal, thread_id, run_id)
        if run.status not in {RunStatus.PENDING, RunStatus.RUNNING}:
            raise NotFound(
                "No matching runs to cancel. Please verify the thread ID and run IDs are correct, and the runs haven't "
                "been deleted or completed."
            )
        await self._supervisor.cancel(principal.tenant_id, run_id, action)
        if wait:
            await self._streams.result(principal.tenant_id, thread_id, run_id)

    async def stop(self, principal: Principal, run_id: UUID) -> None:
        """Cancel a run whose only reader left, as its creator asked (``on_disconnect``)."""
        await self._supervisor.cancel(principal.tenant_id, run_id, "interrupt")

    async def delete(self, principal: Principal, thread_id: UUID, run_id: UUID) -> None:
        """Remove an ended run. Raises ``Conflict`` while it lives, ``NotFound``."""
        async with self._database.writing(principal.tenant_id) as session:
            if await queries.delete(session, principal.tenant_id, thread_id, run_id):
                return
            if await queries.get(session, principal.tenant_id, thread_id, run_id) is not None:
                raise Conflict("The run has not ended: cancel it first.")
        raise NotFound(f"Run with ID {run_id} not found")


def created(claimed: Claimed) -> Run:
    """The run just accepted, as clients see it."""
    return Run(
        run_id=claimed.run_id,
        thread_id=claimed.thread_id,
        assistant_id=claimed.assistant_id,
        created_at=claimed.created_at,
        updated_at=claimed.created_at,
        status=RunStatus.RUNNING if claimed.started else RunStatus.PENDING,
        metadata=msgspec.Raw(claimed.metadata.encode()),
        kwargs=msgspec.Raw(claimed.request),
        multitask_strategy=claimed.strategy,
    )


def _shown(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        thread_id=row.thread_id,
        assistant_id=row.assistant_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        status=row.status,
        metadata=row.metadata,
        kwargs=msgspec.Raw(row.request),
        multitask_strategy=row.multitask_strategy,
    )
