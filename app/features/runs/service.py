"""Use cases of runs: create, read, stream, cancel, delete."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.crash_points import crash_point
from app.base.errors import Conflict, Gone, Invalid, NotFound, Unavailable
from app.base.page_bounds import check_page
from app.domain.event_id import START, EventId
from app.domain.events import Event
from app.domain.lifecycle import LIVE
from app.engine.entries import AcceptEntry, ClaimedRun, created
from app.engine.execution.questions import OpenQuestion
from app.engine.queue.claims import TAKE_OVER, RunAdmission, RunQueue
from app.engine.streams.send_budget import Result
from app.engine.structs import BulkCancel, ContinuedRun, Run, RunCreate, kwargs_of
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.features.runs.creation import RunFactory, answer_event
from app.features.runs.run_streams import RunStreams
from app.features.runs.structs import CurrentRun, EndedRun, RunSearch, RunSummary, RunTransition
from app.features.runs.thread_streams import ThreadCursor, ThreadStreams
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.security.access.structs import AuditSink, MetadataFilter, NullAuditSink, Principal
from app.security.idempotency import queries as keys
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse

MAX_BATCH_SIZE = 100

encode = msgspec.json.Encoder().encode


class RunService:
    """Runs of all tenants. A run continues independently of the request that created it."""

    def __init__(
        self,
        database: Database,
        claims: RunQueue,
        supervisor: Supervisor,
        creation: RunFactory,
        admission: RunAdmission,
        records: AuditSink = NullAuditSink(),
    ) -> None:
        """``records`` receives an audit event for each answer to a run's questions.

        ``log_hours``: hours for which the events of an ended run are kept.
        """
        self._database = database
        self._claims = claims
        self._supervisor = supervisor
        self._creation = creation
        self.admission = admission
        self._records = records
        self.log_hours = supervisor.retention.events_hours
        self._streams = RunStreams(database, supervisor)
        self._thread_streams = ThreadStreams(database, supervisor, self._streams)

    async def create(
        self, principal: Principal, thread_id: UUID | None, body: RunCreate, key: IdempotencyKey | None = None
    ) -> ClaimedRun | ReplayedResponse:
        """Accept a run: committed when this returns, and started here if its turn has come.

        Without ``thread_id`` the run gets a thread of its own, deleted with it unless ``on_completion`` is ``keep``. A
        repeated request with the same ``key`` replays the first response. Raises ``Invalid`` for an input that the
        agent does not accept, ``NotFound``, ``Conflict``, ``Unavailable``.
        """
        self.check_open()
        original = body
        by, body = await self._creation.reach(principal, thread_id, body)
        requested = await self._creation.entry(principal.tenant_id, thread_id, body, by)
        for one in (original, body):  # the entry holds the encoded input, which may be large
            msgspec.structs.force_setattr(one, "input", None)
        async with self.admission.admitted([requested], principal.limits) as (entry,):
            accepted = await (self._claims.accept(entry) if key is None else self._claims.accept_once(entry, key))
        if isinstance(accepted, ReplayedResponse):
            self.admission.release([entry])
            return accepted
        crash_point("accepted")
        if entry.parent_id is not None:
            self._records.record(answer_event(principal, entry.parent_id, body))
        self.launch(entry, accepted)
        return accepted

    def check_open(self) -> None:
        """Raise ``Unavailable`` if this process is shutting down."""
        if self.stopping:
            raise Unavailable("The server is stopping; try again.", retry_after=1)

    @property
    def stopping(self) -> bool:
        """Whether this process is shutting down."""
        return self._supervisor.closing

    def launch(self, entry: AcceptEntry, claimed: ClaimedRun) -> None:
        """Start an accepted run here if its turn has come, else notify those it concerns."""
        if claimed.started:
            self._supervisor.launch(claimed)
            return
        if claimed.behind is not None and entry.multitask_strategy in TAKE_OVER:
            self._supervisor.stop(entry.tenant_id, [claimed.behind], TAKE_OVER[entry.multitask_strategy])
        if claimed.behind is None or entry.delay:
            self._supervisor.queued(entry.delay)

    async def create_batch(
        self, principal: Principal, bodies: Sequence[RunCreate], key: IdempotencyKey | None = None
    ) -> Sequence[Run] | msgspec.Raw:
        """Accept stateless runs in order, all or none. Raises as ``create``."""
        if len(bodies) > MAX_BATCH_SIZE:
            raise Invalid(f"A batch has at most {MAX_BATCH_SIZE} runs.", (("/", "too many"),))
        reach = [await self._creation.reach(principal, None, body) for body in bodies]
        requested = [await self._creation.entry(principal.tenant_id, None, body, by) for by, body in reach]
        self.check_open()
        async with self.admission.admitted(requested, principal.limits) as entries:
            if key is None:
                claims: Sequence[ClaimedRun] | ReplayedResponse = await self._claims.accept_all(entries)
            else:
                claims = await self._batch_once(principal.tenant_id, entries, key)
        if isinstance(claims, ReplayedResponse):
            self.admission.release(entries)
            return msgspec.Raw(claims.answer)
        for entry, claimed in zip(entries, claims, strict=True):
            self.launch(entry, claimed)
        return [created(claimed) for claimed in claims]

    async def _batch_once(
        self, tenant_id: UUID, entries: Sequence[AcceptEntry], key: IdempotencyKey
    ) -> Sequence[ClaimedRun] | ReplayedResponse:
        async with self._database.writing(tenant_id) as session:
            replayed = await keys.take(session, tenant_id, key)
            if replayed is not None:
                return replayed
            claims = await self._claims.accept_on(await session.driver(), entries)
            answer = encode([created(claimed) for claimed in claims])
            await keys.save_response(session, tenant_id, key, ReplayedResponse(answer=answer))
        return claims

    async def get(self, principal: Principal, thread_id: UUID, run_id: UUID) -> Run:
        """Return a run of a thread. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        return await self._get(principal, thread_id, run_id, owned)

    async def _get(self, principal: Principal, thread_id: UUID, run_id: UUID, owned: MetadataFilter) -> Run:
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.get(session, principal.tenant_id, thread_id, run_id)
        if row is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return _shown(row)

    async def transitions(self, principal: Principal, thread_id: UUID, run_id: UUID) -> list[RunTransition]:
        """Return the changes of a run, oldest first. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows = await queries.transitions(session, principal.tenant_id, thread_id, run_id)
        if not rows:
            raise NotFound(f"Run with ID {run_id} not found")
        return [from_row(RunTransition, row) for row in rows]

    async def continued(self, principal: Principal, thread_id: UUID, run_id: UUID) -> ContinuedRun:
        """Return the newest of a run and the runs that continued it by answers, on any wire. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.continued(session, principal.tenant_id, thread_id, run_id)
        if row is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return from_row(ContinuedRun, row)

    async def answered(self, principal: Principal, thread_id: UUID, run_id: UUID) -> UUID | None:
        """Wait for a run that answers questions of ``run_id``, on any wire. None if the thread or the process ends."""
        return await self._thread_streams.answered(principal.tenant_id, thread_id, run_id)

    async def find(self, principal: Principal, key: IdempotencyKey) -> tuple[UUID, UUID] | None:
        """Return the thread and the run that a request with ``key`` has created."""
        async with self._database.reading(principal.tenant_id) as session:
            return await keys.run_of(session, principal.tenant_id, key)

    async def by_id(self, principal: Principal, run_id: UUID) -> Run:
        """Return a run by its id alone. Raises ``NotFound``."""
        return await self.get(principal, await self._thread_of(principal, run_id), run_id)

    async def ended(self, principal: Principal, run_id: UUID) -> EndedRun:
        """Return how a run ended, by its id alone; of one that has not, its status. Raises ``NotFound``."""
        thread_id = await self._thread_of(principal, run_id)
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.ended(session, principal.tenant_id, thread_id, run_id)
        if row is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return from_row(EndedRun, row)

    async def _thread_of(self, principal: Principal, run_id: UUID) -> UUID:
        async with self._database.reading(principal.tenant_id) as session:
            thread_id = await queries.thread_of(session, principal.tenant_id, run_id)
        if thread_id is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return thread_id

    async def may_stop(self, principal: Principal, thread_id: UUID, run_id: UUID) -> None:
        """Check that the principal may cancel a run. Raises ``Forbidden``, ``NotFound``."""
        if principal.rules is not None:
            await self._get(principal, thread_id, run_id, await self._stopping(principal, "interrupt", thread_id))

    async def _stopping(self, principal: Principal, action: str, thread_id: UUID | None) -> MetadataFilter:
        resource = {} if thread_id is None else {"thread_id": thread_id}
        return await principal.permit("threads", "update", action=action, **resource)

    async def list(
        self, principal: Principal, thread_id: UUID, *, status: str | None, limit: int, offset: int
    ) -> tuple[list[Run], int | None]:
        """Return a page of a thread's runs, newest first, and the next offset if the page was cut for its size.

        Raises ``NotFound`` for an unknown thread.
        """
        owned = await principal.permit("threads", "search", thread_id=thread_id, limit=limit, offset=offset)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows = await queries.list_page(
                session, principal.tenant_id, thread_id, status=status, limit=limit, offset=offset
            )
            if not rows and not await queries.thread_exists(session, principal.tenant_id, thread_id):
                raise NotFound(f"Thread with ID {thread_id} not found")
        cut = rows and len(rows) < rows[0].matched
        return [_shown(row) for row in rows], offset + len(rows) if cut else None

    async def current(self, principal: Principal, thread_id: UUID) -> CurrentRun | None:
        """Return a thread's run in progress or next in turn, else its newest one; None before the first.

        Scheduled runs do not count. Raises ``NotFound`` for an unknown thread.
        """
        owned = await principal.permit("threads", "search", thread_id=thread_id, limit=1, offset=0)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.current(session, principal.tenant_id, thread_id)
            if row is None and not await queries.thread_exists(session, principal.tenant_id, thread_id):
                raise NotFound(f"Thread with ID {thread_id} not found")
        return None if row is None else CurrentRun(_shown(row), row.ordinal)

    async def first_of_chain(self, principal: Principal, thread_id: UUID, run_id: UUID) -> UUID:
        """Return the run that began what ``run_id`` continues by an answer; itself if it continues none.

        Raises ``NotFound``.
        """
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            first: UUID | None = await queries.first_of_chain(session, principal.tenant_id, thread_id, run_id)
        if first is None:
            raise NotFound(f"Run with ID {run_id} not found")
        return first

    async def search(self, principal: Principal, wanted: RunSearch) -> tuple[Sequence[RunSummary], UUID | None]:
        """Return a page of the runs of all threads, newest first, and ``before`` of the next page if there may be one.

        Raises ``Invalid``.
        """
        check_page(wanted.limit)
        owned = await principal.permit("threads", "search", thread_id=wanted.thread_id, limit=wanted.limit)
        named = wanted.assistant_id
        assistant_id = None if named is None else self._creation.assistants.id_of(named)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows = await queries.search(session, principal.tenant_id, wanted, assistant_id)
        found = [from_row(RunSummary, row) for row in rows]
        return found, found[-1].run_id if len(found) == wanted.limit else None

    def accepts_options(self, agent: str) -> bool:
        """Whether ``agent``, by its name, takes the tools and instructions of a request (``model_options``)."""
        return self._creation.accepts_options(agent)

    async def open_questions(self, principal: Principal, thread_id: UUID) -> Sequence[OpenQuestion]:
        """Return the questions that a thread waits for; none of an unknown thread."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.open_questions(session, principal.tenant_id, thread_id, None)
        return [] if row is None else msgspec.convert(row.questions or [], Sequence[OpenQuestion])

    async def result(self, principal: Principal, thread_id: UUID | None, run_id: UUID) -> Result:
        """Wait for the end of a run; return its values or error as JSON."""
        return await self._streams.outcome(principal.tenant_id, thread_id, run_id, principal.holder)

    async def check_log(self, principal: Principal, thread_id: UUID, run_id: UUID) -> None:
        """Check that a run's event log is retained. Raises ``NotFound``, ``Gone``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id, run_id=run_id)
        hours = self.log_hours
        async with self._database.reading(principal.tenant_id, owned) as session:
            expired = await queries.log_expired(session, principal.tenant_id, thread_id, hours, run_id=run_id)
        if expired is None:
            raise NotFound(f"Run with ID {run_id} not found")
        if expired:
            raise Gone(
                f"The run ended more than {hours} hours ago: its stream has expired. Read the thread's state instead."
            )

    def stream(
        self,
        principal: Principal,
        run_id: UUID,
        *,
        after: EventId = START,
        modes: Collection[str] | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield chunks of a run's frames after ``after`` until it ends."""
        return self._streams.follow(principal.tenant_id, run_id, after=after, modes=modes, holder=principal.holder)

    def events(self, principal: Principal, run_id: UUID) -> AsyncGenerator[Sequence[Event], None]:
        """Yield a run's events from its start until it ends, in batches; an empty batch: the server is stopping."""
        return self._streams.follow_events(principal.tenant_id, run_id, holder=principal.holder)

    def logged_events(self, principal: Principal, run_id: UUID) -> AsyncGenerator[Event, None]:
        """Yield the events of a run that are in its log now. Raises ``Unavailable``."""
        return self._streams.logged_events(principal.tenant_id, run_id)

    def values_before(self, principal: Principal, run_id: UUID) -> contextlib.AbstractAsyncContextManager[bytes | None]:
        """Load the values that a run started from as JSON (``RunStreams.values_before``)."""
        return self._streams.values_before(principal.tenant_id, run_id, principal.holder)

    async def replayed(self, principal: Principal, key: IdempotencyKey) -> ReplayedResponse | None:
        """Return the response to an earlier request with ``key``. Raises ``Invalid`` if its body was another."""
        async with self._database.reading(principal.tenant_id) as session:
            return await keys.find(session, principal.tenant_id, key)

    async def thread_stream(
        self, principal: Principal, thread_id: UUID, *, after: ThreadCursor | None, modes: Collection[str]
    ) -> AsyncIterator[bytes]:
        """Yield chunks of all runs of a thread after ``after`` (None: from now on). Raises ``NotFound``, ``Gone``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        now = await self._thread_streams.from_now(principal.tenant_id, thread_id, owned)
        if now is None:
            raise NotFound(f"Thread with ID {thread_id} not found")
        if after is not None:
            await self.check_cursor(principal, thread_id, after.ordinal, "Last-Event-ID")
        return self._thread_streams.follow(principal.tenant_id, thread_id, after or now, modes, holder=principal.holder)

    async def check_cursor(self, principal: Principal, thread_id: UUID, ordinal: int, name: str) -> None:
        """Check a cursor inside of the thread's run number ``ordinal``, which clients send as ``name``.

        Raises ``Gone`` if the events of that run have expired: it can be shown from its start alone then.
        """
        hours = self.log_hours
        async with self._database.reading(principal.tenant_id) as session:
            if await queries.log_expired(session, principal.tenant_id, thread_id, hours, ordinal=ordinal):
                raise Gone(f"That run ended more than {hours} hours ago: follow the thread without {name}.")

    async def newest_ordinal(self, principal: Principal, thread_id: UUID) -> int:
        """Return the number of runs that the thread has had. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.run_counts(session, principal.tenant_id, thread_id)
        if row is None:
            raise NotFound(f"Thread with ID {thread_id} not found")
        newest: int = row.runs
        return newest

    async def position(self, principal: Principal, thread_id: UUID, run_id: UUID) -> int:
        """Return the ordinal of a run of a thread. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            ordinal = await queries.ordinal_of(session, principal.tenant_id, thread_id, run_id)
        if ordinal is None:
            raise NotFound(f"Run {run_id} not found")
        return ordinal

    def started_runs(
        self, principal: Principal, thread_id: UUID, ordinal: int, *, stays: bool = True
    ) -> AsyncGenerator[tuple[int, UUID], None]:
        """Yield ordinal and id of each run of a thread from ``ordinal`` on (``ThreadStreams.started_runs``)."""
        return self._thread_streams.started_runs(principal.tenant_id, thread_id, ordinal, stays=stays)

    def values(
        self, principal: Principal, run: tuple[UUID, UUID], checkpoint_id: UUID
    ) -> contextlib.AbstractAsyncContextManager[bytes | None]:
        """Load the values at a checkpoint of ``run`` (thread, run) as JSON (``RunStreams.values``)."""
        return self._streams.values(principal.tenant_id, run, checkpoint_id, principal.holder)

    async def cancel(self, principal: Principal, thread_id: UUID, run_id: UUID, *, action: str, wait: bool) -> None:
        """Cancel a run; with ``wait``, return once it has ended. Raises ``NotFound`` if unknown or already ended."""
        owned = await self._stopping(principal, action, thread_id)
        run = await self._get(principal, thread_id, run_id, owned)
        if run.status not in LIVE:
            raise NotFound(
                "No matching runs to cancel. Please verify the thread ID and run IDs are correct, and the runs haven't "
                "been deleted or completed."
            )
        await self._supervisor.cancel(principal.tenant_id, [run_id], action)
        if wait:
            await self._streams.ended(principal.tenant_id, thread_id, run_id)

    async def cancel_many(self, principal: Principal, which: BulkCancel, action: str) -> None:
        """Cancel all matching runs. Raises ``Invalid``; ``NotFound`` if none match."""
        which.check()
        statuses = [status for status in LIVE if which.status in {status, "all", None}]
        owned = await self._stopping(principal, action, which.thread_id)
        run_ids = await self._supervisor.cancels.matching(
            principal.tenant_id, statuses, which.thread_id, which.run_ids, owned
        )
        if not run_ids:
            raise NotFound("No runs found to cancel.")
        await self._supervisor.cancel(principal.tenant_id, run_ids, action)

    async def stop(self, principal: Principal, run_id: UUID) -> None:
        """Cancel a run because its client disconnected (``on_disconnect``)."""
        await self._supervisor.cancel(principal.tenant_id, [run_id], "interrupt")

    async def undo(self, principal: Principal, run_id: UUID) -> None:
        """Roll a run back because its client is asked to repeat the request."""
        await self._supervisor.cancel(principal.tenant_id, [run_id], "rollback")

    async def delete(self, principal: Principal, thread_id: UUID, run_id: UUID) -> None:
        """Delete an ended run. Raises ``Conflict`` if it has not ended, ``NotFound``."""
        owned = await principal.permit("threads", "delete", thread_id=thread_id, run_id=run_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            if await queries.delete(session, principal.tenant_id, thread_id, run_id):
                return
            if await queries.get(session, principal.tenant_id, thread_id, run_id) is not None:
                raise Conflict("The run has not ended: cancel it first.")
        raise NotFound(f"Run with ID {run_id} not found")


def _shown(row: Row[Any]) -> Run:
    return from_row(Run, row, kwargs=kwargs_of(row.request))
