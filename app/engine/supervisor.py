"""Supervises the live runs of this process: starts them, keeps their leases, ends them, hands them over.

A run belongs to its supervisor, never to the response that requested it.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec
import structlog

from app.agents.port import Agent, Agents
from app.base.containment import kind_of, root_of, stacks_of, tamed
from app.base.errors import LeaseLost, NotFound, Unavailable
from app.base.tasks import Tasks, run_to_completion
from app.domain.lifecycle import Reason
from app.engine.checkpoints.state_cache import StateCache
from app.engine.entries import ClaimedRun
from app.engine.execution.execution import AgentRunContext, Execution, HandOver, RunPaused
from app.engine.execution.journal import Journal
from app.engine.execution.run_state import LoadedThread, load_request, load_thread, nothing_loaded
from app.engine.execution.run_trace import RunTrace
from app.engine.execution.run_writer import RunWriter
from app.engine.queue.cancels.canceller import REASONS, RunCanceller
from app.engine.queue.claims import MAX_ATTEMPTS, RunQueue, account_of
from app.engine.queue.memory_gate import LargeRuns
from app.engine.queue.owned_runs import CancelEnforcer, LeaseRenewer, OwnedRun, log_failed, log_run, log_unended
from app.engine.queue.quarantine import Quarantine
from app.engine.queue.retention.sweeper import RetentionSweeper
from app.engine.queue.run_claimer import RunClaimer
from app.engine.streams.feed_registry import FeedRegistry
from app.engine.streams.frame_transport import FramePublisher
from app.engine.streams.signals import Signal, Signals
from app.engine.structs import RunRequest
from app.infra.db.engine import Database
from app.infra.settings.storage import RetentionSettings
from app.infra.telemetry import trace_context
from app.infra.telemetry.tracing import TraceRecorder
from app.providers.llm.billing import payer
from app.security.limits.budgets import Budgets

log = structlog.get_logger(__name__)

ABANDON_SECONDS = 1.0
"""How long the code of a run may take to stop after a cancellation, before its run continues without it."""

VOUCH_SECONDS = 120.0
VOUCH_PAUSE = 0.5
"""For how long, and at which interval, a process retries to hand over runs lost while the database was unavailable."""


class RunEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that a supervisor works with. ``state_bytes``: maximum bytes of a thread's values."""

    database: Database
    claims: RunQueue
    journal: Journal
    signals: Signals
    feeds: FeedRegistry
    publisher: FramePublisher
    budgets: Budgets
    retention: RetentionSettings = RetentionSettings()
    state_bytes: int = 0

    def start(self) -> None:
        """Start all parts in order."""
        self.budgets.start()
        self.journal.start()
        self.claims.start()
        self.signals.start()
        self.feeds.start()
        self.publisher.start()

    async def aclose(self) -> None:
        """Close all parts in reverse order."""
        await self.publisher.aclose()
        await self.feeds.aclose()
        await self.signals.aclose()
        await self.claims.aclose()
        await self.journal.aclose()
        await self.budgets.aclose()


class Supervisor:
    """Runs the live runs of one process."""

    def __init__(
        self,
        parts: RunEngine,
        agents: Agents,
        recorder: TraceRecorder,
        *,
        max_runs: int = 1000,
        log_runs: bool = False,
        on_end: Callable[[ClaimedRun, RunRequest], None] = lambda *_: None,
    ) -> None:
        """``max_runs``: maximum of live runs here; 0 for a process that accepts runs for others.

        ``log_runs``: log a line for each run that ends here.

        ``on_end`` is called with each run that has ended here, and its request.
        """
        self._on_end = on_end
        self._database = parts.database
        self._claims, self._journal, self._budgets = parts.claims, parts.journal, parts.budgets
        self._signals, self._publisher, self.feeds = parts.signals, parts.publisher, parts.feeds
        self.cancels = RunCanceller(parts.database)
        self._agents, self._max_runs, self._log_runs = agents, max_runs, log_runs
        self._meters, self._tracer = recorder
        self._cache = StateCache()
        self._large = LargeRuns()
        self._state_bytes = parts.state_bytes
        self._tasks = Tasks("runs")
        self._live: dict[UUID, OwnedRun] = {}
        self._leases = LeaseRenewer(parts.claims, self._live, lost=lambda: recorder.meters.leases_lost.add(1))
        self.retention = parts.retention
        sweeps = RetentionSweeper(parts.database, parts.retention)
        self._quarantine = Quarantine(parts.claims, self._live, max_runs, wake=self._wake)
        self._claimer = RunClaimer(parts.claims, self.cancels, sweeps, parts.signals, self._quarantine, self)
        self._abandoned: set[asyncio.Task[None]] = set()
        self._cancel_enforcer = CancelEnforcer(
            self.cancels, self._live, ended=self.queued, leave=self._cancelled_elsewhere
        )
        self.draining = False
        """Runs are not executed here any more, only accepted and streamed for other processes."""
        self.closing = False
        """Runs are not accepted here any more either, and subscribers are sent to another process."""

    def start(self) -> None:
        """Start renewing leases, listening to signals and claiming queued runs."""
        self._signals.listen(self._on_signal)
        if self._max_runs:
            self._cache.start()
            self._leases.start()
            self._claimer.start()

    @property
    def active(self) -> int:
        """Number of live runs here."""
        return len(self._live)

    def live(self, run_id: UUID) -> OwnedRun | None:
        """Return the run ``run_id`` if this process owns it."""
        return self._live.get(run_id)

    @property
    def owner(self) -> UUID | None:
        """Owner token for a run accepted now; None if there is no room for it here."""
        return self._claims.owner if self.room() > 0 else None

    def _wake(self) -> None:
        self._claimer.wake()

    def room(self) -> int:
        """Return how many more runs may start here now."""
        return 0 if self.draining or self._quarantine.closed else self._max_runs - len(self._live)

    def launch(self, claimed: ClaimedRun) -> OwnedRun:
        """Run ``claimed`` in a task of its own."""
        claimed = self._large.without_request(claimed)
        # open the feed now, so that an early subscriber waits for it without querying the database
        feed = self.feeds.open(claimed.tenant_id, claimed.run_id, claimed.thread_id, claimed.epoch)
        live = OwnedRun(claimed, feed)
        live.task = self._tasks.start(self._run(live), name=f"run-{claimed.run_id}")
        self._live[claimed.run_id] = live  # not before: a run without a task would never end
        self._meters.runs_active.add(1)
        if claimed.suspect:
            self._quarantine.launched(live)
        return live

    def queued(self, delay: float = 0.0) -> None:
        """Announce that a run is queued, to be claimed by any process in ``delay`` seconds."""
        if self._max_runs:
            self._claimer.wake_in(delay)
        elif delay:
            asyncio.get_running_loop().call_later(delay, self._signals.queue)
        if not delay:
            self._signals.queue()

    async def cancel(self, tenant_id: UUID, run_ids: Sequence[UUID], action: str) -> None:
        """Cancel ``run_ids`` wherever they are: recorded in the database first, then signalled."""
        await self.cancels.cancel(tenant_id, run_ids, action)
        self.stop(tenant_id, run_ids, action)

    def stop(self, tenant_id: UUID, run_ids: Sequence[UUID], action: str) -> None:
        """Signal live runs here and elsewhere to stop; the database has recorded it already."""
        elsewhere = []
        for run_id in run_ids:
            live = self._live.get(run_id)
            if live is None:
                elsewhere.append(run_id)
            elif live.claimed.tenant_id == tenant_id:
                live.cancel(action)
        self._signals.cancel(elsewhere, action)
        self._cancel_enforcer.schedule()

    def _on_signal(self, signal: Signal) -> None:
        self._cache.forget(signal.erased)
        for run_id, action in signal.cancel.items():
            if (live := self._live.get(run_id)) is not None:
                live.cancel(action)
                self._cancel_enforcer.schedule()
        for run_id in (*signal.watch, *signal.again):
            if (live := self._live.get(run_id)) is not None:
                self._publisher.ask(live.claimed.tenant_id, run_id, live.feed, again=run_id in signal.again)

    async def drain(self, seconds: float) -> None:
        """Retire, and end the streams of runs that live elsewhere."""
        self.closing = True
        await self.retire(seconds)
        self.feeds.drain()

    async def retire(self, seconds: float) -> None:
        """Graceful shutdown: take no new runs, let steps finish for up to ``seconds``, then hand over what still runs.

        Code that does not stop even then is abandoned: another process resumes its run from the last committed step.
        """
        self.draining = True
        await self._claimer.aclose()
        for live in list(self._live.values()):
            if live.execution is not None:
                live.execution.drain()
            elif live.waiting is not None:
                live.interrupt_step()
        await self._tasks.wait(seconds)
        for live in list(self._live.values()):
            live.interrupt_step()
        await self._tasks.wait(ABANDON_SECONDS)
        lives = [live for live in self._live.values() if not live.finishing]
        await asyncio.gather(*(self._end_without_code(live, "handover") for live in lives))
        await self._tasks.aclose()
        await self._cache.aclose()
        await self._leases.aclose()
        await self._cancel_enforcer.aclose()

    async def _run(self, live: OwnedRun) -> None:
        claimed = live.claimed
        trace_context.run_id.set(str(claimed.run_id))
        live.trace = RunTrace(self._tracer, claimed)
        status, reserved = "lost", 0
        try:
            reserved = await self._large.acquire(live)
            loaded, broken = await self._load(claimed)
            loaded.state.max_bytes = self._state_bytes
            claimed = live.release_request()
            execution, context = self._prepare(live, loaded)
            await self._execute(live, execution, context, broken)
            status = execution.writer.status.value
        except HandOver:
            status = "handover"
            live.finishing = True
            cut = live.execution is not None and live.execution.writer.events.uncommitted  # the next owner retracts it
            await self._hand_over(live, Reason.CUT if cut else Reason.HANDOVER)
        except asyncio.CancelledError:
            if live.abandoned:
                raise
            status = "lost" if live.lost else "handover"
            live.finishing = True
            if live.away:
                self._tasks.start(self._release_after_outage(live), name="release_after_outage")
            else:
                await run_to_completion(self._hand_over(live, Reason.RECOVERED if live.lost else Reason.CUT))
            if not live.lost:
                raise
        except (LeaseLost, Unavailable) as error:
            if not live.abandoned:
                log.warning("lease_lost", run_id=str(claimed.run_id), epoch=claimed.epoch, error=type(error).__name__)
                if isinstance(error, Unavailable):
                    self._tasks.start(self._release_after_outage(live), name="release_after_outage")
        except Exception as error:
            if live.abandoned:
                raise
            status = await run_to_completion(self._end_anyway(live, error))
        finally:
            self._large.release(claimed, reserved)
            if not live.abandoned:  # else ``_end_without_code`` settles the run, once its end is written
                self._settle(live, status)

    async def _load(self, claimed: ClaimedRun) -> tuple[LoadedThread, Exception | None]:
        """Load the run's thread; return also what kept it from being loaded, which ends the run.

        Raises ``Unavailable`` if the database is away: another attempt may load it.
        """
        request = RunRequest()
        try:
            request = await load_request(self._database, claimed)
            return await load_thread(self._database, self._cache, claimed, request), None
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever keeps a thread from being loaded ends its run
            return nothing_loaded(claimed, request), error

    def _prepare(self, live: OwnedRun, loaded: LoadedThread) -> tuple[Execution, AgentRunContext]:
        """Create the execution of a run whose thread is ``loaded``, and the context of its agent."""
        claimed = live.claimed
        account = account_of(self._budgets, claimed, loaded.request)
        payer.set(account)  # the task and its context belong to this run
        writer = RunWriter(claimed, loaded, live.lease, live.feed, self._journal, self._tasks)
        on_step = functools.partial(self._quarantine.committed, live) if claimed.suspect else None
        live.execution = execution = Execution(claimed, loaded, writer, account, live.trace, on_step)
        live.context = context = AgentRunContext(claimed, loaded, execution)
        if self.draining or (self._quarantine.yielding and not claimed.suspect):
            execution.drain()
        return execution, context

    async def _end_anyway(self, live: OwnedRun, error: BaseException) -> str:
        """End a run that could not end as it should, or hand it over, lest it keep its lease; return its status."""
        execution, live.finishing = live.execution, True
        log_unended(live, error)
        try:
            if execution is not None and not execution.writer.ended:
                await execution.fail(error)  # without what could not be written
        except LeaseLost:
            return "lost"
        except Exception as again:  # noqa: BLE001  whatever keeps the end from being written, another process may do it
            log_unended(live, again)
        if execution is not None and execution.writer.ended:
            return execution.writer.status.value
        if live.claimed.epoch >= MAX_ATTEMPTS:
            return "lost"  # it may not end anywhere: from now on its leases expire, which counts
        await self._hand_over(live, Reason.CUT)
        return "handover"

    async def _hand_over(self, live: OwnedRun, reason: Reason) -> None:
        try:
            await self._claims.hand_over(live.claimed, reason)
            self._signals.queue()
        except Exception as error:  # noqa: BLE001  whatever keeps it from being handed over, its lease expires
            log.warning("run_not_handed_over", run_id=str(live.claimed.run_id), error=kind_of(error))

    async def _release_after_outage(self, live: OwnedRun) -> None:
        """Hand over a run whose lease was lost in a database outage, once the database is back.

        As the process lives, it does not count against the run (``app.engine.queue.quarantine``).
        """
        deadline = time.monotonic() + VOUCH_SECONDS
        while not self.draining and time.monotonic() < deadline:
            try:
                await self._claims.release_after_outage(live.claimed)
            except Unavailable:
                await asyncio.sleep(VOUCH_PAUSE)
                continue
            self._signals.queue()
            return

    async def _execute(
        self, live: OwnedRun, execution: Execution, context: AgentRunContext, broken: Exception | None
    ) -> None:
        """Run the agent; ``broken`` ends the run instead (``_load``)."""
        limit, overdue = asyncio.timeout(None), None
        execution.announce()
        try:
            if live.action:
                live.finishing = True
                await self._stop(live, execution)
                return
            if broken is not None:
                raise broken
            agent = self._agent(live.claimed.agent)
            overdue = asyncio.get_running_loop().call_later(agent.seconds + ABANDON_SECONDS, self._overdue, live)
            limit = asyncio.timeout(agent.seconds)
            async with limit:
                await execution.begin(agent)
                outcome = await agent.run(context)
                if live.abandoned:
                    return
                live.finishing = True
            await execution.end(outcome)
        except BaseException as error:  # noqa: BLE001  whatever an agent raises ends its run, not the process
            await self._raised(live, execution, tamed(root_of(error)), timed_out=limit.expired())
        finally:
            if overdue is not None:
                overdue.cancel()

    async def _raised(self, live: OwnedRun, execution: Execution, error: BaseException, *, timed_out: bool) -> None:
        """End the run according to what its agent raised. Re-raises ``error`` if that does not end it."""
        cancelled = isinstance(error, asyncio.CancelledError) and live.stopped
        if isinstance(error, HandOver | LeaseLost) or live.abandoned or (cancelled and not live.action):
            raise error
        if isinstance(error, GeneratorExit) and asyncio.current_task() is not live.task:
            raise error  # the interpreter is closing this coroutine
        live.finishing = True
        if isinstance(error, RunPaused):
            return
        if cancelled:
            await self._stop(live, execution)
        elif execution.writer.ended:
            return
        elif isinstance(error, TimeoutError) and timed_out:
            await execution.time_out()
        else:
            log_failed(live, error)
            await execution.fail(error)

    def _overdue(self, live: OwnedRun) -> None:
        """The run exceeded its time limit, and its code has ignored the cancellation."""
        if not live.finishing and not live.lost:
            self._tasks.start(self._end_without_code(live, "timeout"), name="leave")

    async def _end_without_code(self, live: OwnedRun, status: str) -> None:
        """End the run, or hand it over, without its code, which does not stop."""
        execution = live.execution
        self._abandon_code(live)
        try:
            if execution is None or status == "handover":
                await self._hand_over(live, Reason.CUT)
            else:
                await execution.writer.settle()
                if not execution.writer.ended:
                    await execution.time_out()
                status = execution.writer.status.value
        except (LeaseLost, Unavailable) as error:
            log.warning("lease_lost", run_id=str(live.claimed.run_id), error=type(error).__name__)
            status = "lost"
        except Exception as error:  # noqa: BLE001  the same as in the task of a run
            status = await self._end_anyway(live, error)
        finally:
            self._settle(live, status)

    def _abandon_code(self, live: OwnedRun) -> None:
        """Abandon the run's task: from now on it can neither write nor emit anything."""
        live.abandon()
        task, claimed = live.task, live.claimed
        if task is None or task.done():
            return
        self._tasks.release(task)
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        self._meters.runs_left.add(1, claimed.agent)
        log.error("run_left_behind", run_id=str(claimed.run_id), agent=claimed.agent, at=stacks_of(task))

    def _cancelled_elsewhere(self, live: OwnedRun) -> None:
        """A cancelled run was ended in the database while its code still runs here."""
        self._abandon_code(live)
        self._settle(live, "interrupted")

    async def _stop(self, live: OwnedRun, execution: Execution) -> None:
        if execution.writer.ended:
            return
        if live.action != "rollback":
            await execution.cancelled(REASONS[live.action])
            return
        await execution.writer.settle()
        queued = await self.cancels.roll_back(live.claimed)
        if queued is None:
            raise LeaseLost("The run has another owner.")
        execution.rolled_back(queued)

    def _agent(self, name: str) -> Agent:
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound(f"Agent {name!r} is not configured here: add it to the agents file.")
        return agent

    def _settle(self, live: OwnedRun, status: str) -> None:
        """Remove the run: it has ended with ``status``, or another process resumes it."""
        if live.settled:
            return
        live.settled = True
        claimed, execution = live.claimed, live.execution
        if self._live.get(claimed.run_id) is live:  # it may have been lost, and claimed here again
            del self._live[claimed.run_id]
        result = None
        ended = execution is not None and execution.writer.ended
        self.feeds.settle(claimed.run_id, live.feed, finished=ended)
        if execution is not None and ended:
            result = execution.result() if live.awaited else []
            self._on_end(claimed, execution.request)
            if (state := execution.cached_state()) is not None:
                self._cache.put(claimed.tenant_id, claimed.thread_id, state)
            if execution.writer.queued:
                self._start_next((claimed.tenant_id, claimed.thread_id))
        if claimed.suspect:
            self._quarantine.settled(live)
        self._claimer.on_run_ended()
        self._count_end(live, status)
        if not live.done.done():
            live.done.set_result(result)

    def _count_end(self, live: OwnedRun, status: str) -> None:
        execution, agent = live.execution, live.claimed.agent
        if execution is not None:
            execution.account.close(status)
        self._meters.runs_active.add(-1)
        self._meters.runs.add(1, status, agent)
        seconds = time.monotonic() - live.started
        self._meters.run_duration.record(seconds, status, agent)
        if self._log_runs:
            log_run(live, status, seconds)
        live.trace.end(status, None if execution is None else execution.usage)

    def _start_next(self, thread: tuple[UUID, UUID]) -> None:
        """Start the next queued run of a thread that is free now, here or in another process."""
        if self.draining:
            self._signals.queue()
        else:
            self._tasks.start(self._claimer.claim_next(thread), name="claim")
