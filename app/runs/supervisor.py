"""Owns the live runs of this process: starts them, keeps their leases, ends them, hands them over.

A run belongs to its supervisor, never to the response that asked for it.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from uuid import UUID

import structlog

from app.agents.port import Agent, Agents
from app.base.errors import LeaseLost, NotFound, Unavailable
from app.base.tasks import Tasks
from app.bus.feed import Feed
from app.checkpoints.cache import StateCache
from app.db.engine import Database
from app.runs.cancels import REASONS, Cancels
from app.runs.claims import Claims
from app.runs.entries import Claimed
from app.runs.execution import Execution, HandOver, Paused
from app.runs.journal import Journal
from app.runs.loading import load_thread
from app.runs.sweeps import Sweeps
from app.telemetry.meters import Meters

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 5.0
"""How often runs whose lease has ended, and due runs that nobody took, are looked for."""

KEEP_TEMPORARY_SECONDS = 600.0
"""How long a stateless run can be joined, and its stream read again, after its end."""

CLAIM_MOST = 32
"""Runs claimed at once in a sweep."""


class Live:
    """A run while this process owns it. ``done`` is set once it has ended or was given up."""

    def __init__(self, claimed: Claimed, feed: Feed) -> None:
        self.claimed = claimed
        self.feed = feed
        self.execution: Execution | None = None
        self.task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.awaited = False
        self.action = ""
        self.finishing = False

    def cancel(self, action: str) -> None:
        """Stop at once, on a client's word (``app.runs.cancels``); without effect on a run that is ending anyway."""
        self.action = self.action or action
        if self.task is not None and self.execution is not None and not self.finishing:
            self.task.cancel()  # one that has not begun looks at ``action`` first


class Supervisor:
    """The live runs of one process."""

    def __init__(self, database: Database, claims: Claims, journal: Journal, agents: Agents, meters: Meters) -> None:
        self._database = database
        self._claims = claims
        self._cancels = Cancels(database)
        self._sweeps = Sweeps(database)
        self._journal = journal
        self._agents = agents
        self._meters = meters
        self._cache = StateCache()
        self._tasks = Tasks("runs")
        self._loops = Tasks("supervisor")
        self._live: dict[UUID, Live] = {}
        self._expected: dict[UUID, Feed] = {}
        self._watchers: dict[tuple[UUID, UUID], set[asyncio.Future[None]]] = {}
        self.draining = False

    def start(self, lease_seconds: float) -> None:
        """Begin to keep leases and to look for runs that nobody owns."""
        self._loops.repeat(self._keep_leases, lease_seconds / 3, name="leases")
        self._loops.repeat(self._sweep, SWEEP_SECONDS, name="sweep")

    @property
    def active(self) -> int:
        """How many runs are live here."""
        return len(self._live)

    def live(self, run_id: UUID) -> Live | None:
        """The run ``run_id`` if this process owns it."""
        return self._live.get(run_id)

    def feed(self, run_id: UUID) -> Feed:
        """The feed of ``run_id``: of the live run, or one that it will fill if its turn comes here."""
        live = self._live.get(run_id)
        return live.feed if live is not None else self._expected.setdefault(run_id, Feed())

    @contextlib.contextmanager
    def watching(self, thread: tuple[UUID, UUID]) -> Iterator["asyncio.Future[None]"]:
        """A future that is done when a run of the thread (tenant, thread) is taken up here within the block."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watchers = self._watchers.setdefault(thread, set())
        watchers.add(news)
        try:
            yield news
        finally:
            watchers.discard(news)
            if not watchers and self._watchers.get(thread) is watchers:
                del self._watchers[thread]

    def forget(self, run_id: UUID, feed: Feed) -> None:
        """Nobody reads ``feed`` any more; if its run never came here there is no need to expect it."""
        if self._expected.get(run_id) is feed:
            del self._expected[run_id]

    async def matching(
        self, tenant_id: UUID, statuses: Sequence[str], thread_id: UUID | None, run_ids: Sequence[UUID] | None
    ) -> list[UUID]:
        """The runs of a tenant that a bulk cancel means."""
        return await self._cancels.matching(tenant_id, statuses, thread_id, run_ids)

    def launch(self, claimed: Claimed) -> Live:
        """Run ``claimed`` in a task of its own."""
        live = Live(claimed, self.feed(claimed.run_id))
        self._expected.pop(claimed.run_id, None)
        live.feed.open(claimed.epoch)  # now, so that a reader who comes first waits here and asks no database
        self._live[claimed.run_id] = live
        for news in self._watchers.get((claimed.tenant_id, claimed.thread_id), ()):
            if not news.done():
                news.set_result(None)
        live.task = self._tasks.start(self._run(live), name=f"run-{claimed.run_id}")
        return live

    def claim_later(self, delay: float, thread: tuple[UUID, UUID]) -> None:
        """Claim the thread's next run once ``delay`` seconds have passed."""
        loop = asyncio.get_running_loop()
        loop.call_later(delay, lambda: self._tasks.start(self._claim_next(thread), name="claim"))

    async def cancel(self, tenant_id: UUID, run_ids: Sequence[UUID], action: str) -> None:
        """Stop ``run_ids`` wherever they are: recorded first, then felt."""
        await self._cancels.cancel(tenant_id, run_ids, action)
        for run_id in run_ids:
            self.stop(tenant_id, run_id, action)

    def stop(self, tenant_id: UUID, run_id: UUID, action: str) -> None:
        """Let a live run feel that it shall stop, if it lives here; the database has it already."""
        live = self._live.get(run_id)
        if live is not None and live.claimed.tenant_id == tenant_id:
            live.cancel(action)

    async def drain(self, seconds: float) -> None:
        """Take no new runs; let running steps finish for up to ``seconds``, then hand over what still runs."""
        self.draining = True
        await self._loops.aclose()
        for live in list(self._live.values()):
            if live.execution is not None:
                live.execution.draining = True
        await self._tasks.wait(seconds)
        await self._tasks.aclose()
        for feed in self._expected.values():
            feed.close(finished=False)

    async def _run(self, live: Live) -> None:
        claimed = live.claimed
        self._meters.runs_active.add(1)
        started = time.monotonic()
        status = "lost"
        try:
            loaded = await load_thread(self._database, self._cache, claimed)
            live.execution = execution = Execution(claimed, loaded, self._journal, live.feed, self._tasks)
            execution.draining = self.draining
            await self._execute(live, execution)
            status = execution.status.value
        except HandOver:
            status = "handover"
            await self._claims.hand_over(claimed)
        except asyncio.CancelledError:
            status = "handover"
            await self._claims.hand_over(claimed)
            raise
        except (LeaseLost, Unavailable) as error:
            log.warning("lease_lost", run_id=str(claimed.run_id), epoch=claimed.epoch, error=type(error).__name__)
        finally:
            self._settle(live)
            self._meters.runs_active.add(-1)
            self._meters.runs.add(1, status, claimed.agent)
            self._meters.run_duration.record(time.monotonic() - started, status, claimed.agent)

    async def _execute(self, live: Live, execution: Execution) -> None:
        limit = asyncio.timeout(None)
        execution.announce()
        try:
            if live.action:
                live.finishing = True
                await self._stop(live, execution)
                return
            agent = self._agent(live.claimed.agent)
            limit = asyncio.timeout(agent.seconds)
            async with limit:
                await execution.begin(agent)
                outcome = await agent.run(execution)
                live.finishing = True
            await execution.end(outcome)
        except (HandOver, LeaseLost):
            raise
        except Paused:
            live.finishing = True
        except asyncio.CancelledError:
            if not live.action:
                raise
            live.finishing = True
            await self._stop(live, execution)
        except Exception as error:  # the edge: whatever an agent raises ends its run, not the process
            live.finishing = True
            if execution.ended:
                return
            if isinstance(error, TimeoutError) and limit.expired():
                await execution.time_out()
            else:
                log.info("run_failed", run_id=str(live.claimed.run_id), error=type(error).__name__, exc_info=error)
                await execution.fail(error)

    async def _stop(self, live: Live, execution: Execution) -> None:
        if execution.ended:
            return
        if live.action != "rollback":
            await execution.cancelled(REASONS[live.action])
            return
        await execution.settle_input()
        queued = await self._cancels.roll_back(live.claimed)
        if queued is None:
            raise LeaseLost("The run has another owner.")
        execution.rolled_back(queued)

    def _agent(self, name: str) -> Agent:
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound(f"Agent {name!r} is not configured here: add it to the agents file.")
        return agent

    def _settle(self, live: Live) -> None:
        claimed, execution = live.claimed, live.execution
        self._live.pop(claimed.run_id, None)
        live.feed.close(finished=execution is not None and execution.ended)
        result = None
        if execution is not None and execution.ended:
            result = execution.result() if live.awaited else b""
            if execution.head is not None and not claimed.temporary and not execution.gone:
                self._cache.put(claimed.tenant_id, claimed.thread_id, execution.kept(execution.head))
            if execution.queued and not self.draining:
                self._tasks.start(self._claim_next((claimed.tenant_id, claimed.thread_id)), name="claim")
        if not live.done.done():
            live.done.set_result(result)

    async def _claim_next(self, thread: tuple[UUID, UUID]) -> None:
        if not self.draining:
            for claimed in await self._claims.claim(1, thread):
                self.launch(claimed)

    async def _keep_leases(self) -> None:
        held = dict(self._live)
        if not held:
            return
        try:
            ours = await self._claims.extend(list(held))
        except Unavailable as error:
            log.warning("lease_heartbeat_failed", error=str(error))
            return
        for run_id, live in held.items():
            if run_id not in ours:
                self._lose(live)
            elif (action := ours[run_id]) is not None:
                live.cancel(action)

    def _lose(self, live: Live) -> None:
        if self._live.get(live.claimed.run_id) is live and live.task is not None and not live.finishing:
            live.task.cancel()

    async def _sweep(self) -> None:
        try:
            await self._cancels.finish_expired()
            await self._claims.release_expired()
            await self._sweeps.temporary(KEEP_TEMPORARY_SECONDS)
            await self._sweeps.expired()
            await self._sweeps.keys()
            for claimed in await self._claims.claim(CLAIM_MOST):
                self.launch(claimed)
        except Unavailable as error:
            log.warning("sweep_failed", error=str(error))
