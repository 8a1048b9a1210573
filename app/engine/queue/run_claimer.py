"""Claim queued runs on notification, and poll for runs of dead owners. Also metrics of the queue."""

import asyncio
from collections.abc import Awaitable
from typing import Protocol
from uuid import UUID

import structlog

from app.base.errors import Unavailable
from app.base.tasks import Tasks, run_to_completion
from app.base.wakeup import WakeUp
from app.domain.lifecycle import Reason
from app.engine.entries import ClaimedRun
from app.engine.queue.cancels.canceller import RunCanceller
from app.engine.queue.claims import LEFT_TO_OTHERS, RunQueue
from app.engine.queue.quarantine import Quarantine
from app.engine.queue.retention.sweeper import RetentionSweeper
from app.engine.queue.sql import QUEUE_DEPTH, RUNNING
from app.engine.streams.signals import Signal, Signals
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters

log = structlog.get_logger(__name__)

REAP_SECONDS = 5.0
"""Interval of looking for expired leases, and for due runs whose signal was lost."""

CLAIM_BACK_OFF = 1.0
"""Maximum backoff between claims while the database is unavailable."""

SWEEP_SECONDS = 30.0
"""Interval of retention sweeps; each continues until nothing is due."""

KEEP_TEMPORARY_SECONDS = 600.0
"""How long a stateless run can be joined, and its stream replayed, after its end."""

AT_ONCE = 32
"""Runs claimed in one statement."""

EVERY_SECONDS = 5.0

MAX_COUNTED_RUNS = 10_000
"""Runs counted at most: a longer queue is reported as this long."""

ORPHANED_SECONDS = 5.0
"""How long a lease must have expired to count as orphaned: longer than the interval at which others recover runs."""


class RunHost(Protocol):
    """Executes the runs that are claimed."""

    def launch(self, claimed: ClaimedRun) -> object:
        """Start ``claimed``."""
        ...

    def room(self) -> int:
        """Return how many more runs may start now."""
        ...


class RunClaimer:
    """Claims runs for ``host`` while it has room; suspects first, as ``quarantine`` permits."""

    def __init__(
        self,
        claims: RunQueue,
        cancels: RunCanceller,
        sweeps: RetentionSweeper,
        signals: Signals,
        quarantine: Quarantine,
        host: RunHost,
    ) -> None:
        self._claims = claims
        self._cancels = cancels
        self._sweeps = sweeps
        self._signals = signals
        self._quarantine = quarantine
        self._host = host
        self._tasks = Tasks("claimer")
        self._wake = WakeUp()
        self._full = False
        self._closing = False

    def start(self) -> None:
        """Start claiming."""
        self._signals.listen(self._on_signal)
        self._wake.set()
        self._tasks.repeat(self._claim, 0, name="claim", essential=True, back_off=CLAIM_BACK_OFF)
        self._tasks.repeat(self._reap, REAP_SECONDS, name="reap", essential=True)
        for name, sweep in self._sweeps.kinds(KEEP_TEMPORARY_SECONDS).items():
            self._tasks.repeat(sweep, SWEEP_SECONDS, name=f"sweep-{name}")

    async def aclose(self) -> None:
        """Stop claiming; runs of a claim in progress are released."""
        self._closing = True
        await self._tasks.aclose()
        await self._quarantine.aclose()

    def wake(self) -> None:
        """Claim now, as there may be due runs."""
        self._wake.set()

    def on_run_ended(self) -> None:
        """A run ended: claim, if runs are waiting for room."""
        if self._quarantine.closed:
            self._quarantine.poll_now()
            self._wake.set()
        elif self._full:
            self._wake.set()

    def wake_in(self, seconds: float) -> None:
        """Claim in ``seconds``, when there will be a due run."""
        asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def claim_next(self, thread: tuple[UUID, UUID]) -> None:
        """Claim the next run of a thread that has become free here, or leave it to others if there is no room."""
        if self._host.room() > 0:
            await run_to_completion(self._take(self._claims.claim_next(thread)))
        else:
            self._full = True
            self._signals.queue()

    def _on_signal(self, signal: Signal) -> None:
        if signal.queue or signal.is_empty:
            self._wake.set()

    async def _claim(self) -> None:
        await self._wake.wait(REAP_SECONDS)
        try:
            others_first = self._quarantine.others_first
            if not others_first:
                await run_to_completion(self._take(self._quarantine.claim()))
            await self._take_others()
            if others_first:
                await run_to_completion(self._take(self._quarantine.claim()))
        except BaseException:  # the signal that woke it still needs a claim
            self._wake.set()
            raise

    async def _take_others(self) -> None:
        while (room := self._host.room()) > 0:
            count = min(room, AT_ONCE)
            if await run_to_completion(self._take(self._claims.claim(count))) < count:
                self._full = False
                return
        self._full = True

    async def _take(self, claiming: Awaitable[list[ClaimedRun]]) -> int:
        """Launch the claimed runs, or release them if the process closes meanwhile; return how many."""
        claims = await claiming
        for claimed in claims:
            await self._begin(claimed)
        return len(claims)

    async def _begin(self, claimed: ClaimedRun) -> None:
        if self._closing:
            await self._release(claimed)
            return
        try:
            self._host.launch(claimed)
        except Exception:
            log.exception("run_not_launched", run_id=str(claimed.run_id))
            await self._release(claimed)

    async def _release(self, claimed: ClaimedRun) -> None:
        """Requeue a run that did not start here without counting an attempt; a suspect stays one."""
        try:
            await self._claims.hand_over(claimed, Reason.CUT if claimed.crashed_mid_step else Reason.HANDOVER)
        except Unavailable:
            return  # its lease expires
        self._signals.queue()

    async def _reap(self) -> None:
        ended = await self._cancels.finish_expired()
        released = await self._claims.release_expired()
        if released:
            self.wake_in(LEFT_TO_OTHERS)
        if released or ended:
            self._quarantine.poll_now()
            self._wake.set()
            self._signals.queue()


class QueueMetrics:
    """Gauges of the queue, which is the same for every process."""

    def __init__(self, database: Database, meters: Meters) -> None:
        self._database = database
        self._meters = meters
        self._tasks = Tasks("queue-metrics")

    def start(self) -> None:
        """Start refreshing."""
        self._tasks.repeat(self.refresh, EVERY_SECONDS, name="refresh")

    async def aclose(self) -> None:
        """Stop refreshing."""
        await self._tasks.aclose()

    async def refresh(self) -> None:
        """Query the queue once and set the gauges."""
        async with self._database.engine_connection() as connection:
            queue = await connection.fetchrow(QUEUE_DEPTH, MAX_COUNTED_RUNS)
            under_way = await connection.fetchrow(RUNNING, ORPHANED_SECONDS)
        self._meters.queue_depth.set(queue["depth"])
        self._meters.queue_age.set(queue["age"])
        self._meters.runs_orphaned.set(under_way["orphaned"])
        self._meters.oldest_run.set(under_way["age"])
