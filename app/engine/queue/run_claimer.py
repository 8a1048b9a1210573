"""Takes up runs that wait: woken when there are some, and looking now and then for those whose owner has died.

How many runs wait for their turn, and for how long the oldest has; which of those under way nobody works on.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol
from uuid import UUID

from app.base.errors import Unavailable
from app.base.tasks import Tasks, to_the_end, wait_for
from app.domain.lifecycle import Reason
from app.engine.entries import ClaimedRun
from app.engine.queue.cancels import RunCanceller
from app.engine.queue.claims import LEFT_TO_OTHERS, RunQueue
from app.engine.queue.quarantine import Quarantine
from app.engine.queue.retention import RetentionSweeper
from app.engine.streams.signals import Signal, Signals
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters

REAP_SECONDS = 5.0
"""How often runs whose lease has ended are looked for, and due runs of which no signal came."""

CLAIM_BACK_OFF = 1.0
"""The longest pause between two tries to claim while the database is away."""

SWEEP_SECONDS = 30.0
"""Between two sweeps; each goes on until nothing is due."""

KEEP_TEMPORARY_SECONDS = 600.0
"""How long a stateless run can be joined, and its stream read again, after its end."""

AT_ONCE = 32
"""Runs claimed in one statement."""


class RunHost(Protocol):
    """What executes the runs that are claimed."""

    def launch(self, claimed: ClaimedRun) -> object:
        """Begin with ``claimed``."""
        ...

    def room(self) -> int:
        """How many more runs may begin now."""
        ...


class RunClaimer:
    """Claims for ``host`` as long as it has room for more runs; suspects first, as ``quarantine`` lets them."""

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
        self._tasks = Tasks("pickup")
        self._wake = asyncio.Event()
        self._full = False
        self._closing = False

    def start(self) -> None:
        """Begin to claim."""
        self._signals.listen(self._hear)
        self._wake.set()
        self._tasks.repeat(self._claim, 0, name="claim", essential=True, back_off=CLAIM_BACK_OFF)
        self._tasks.repeat(self._reap, REAP_SECONDS, name="reap", essential=True)
        for name, sweep in self._sweeps.kinds(KEEP_TEMPORARY_SECONDS).items():
            self._tasks.repeat(sweep, SWEEP_SECONDS, name=f"sweep-{name}")

    async def aclose(self) -> None:
        """Claim no more; what a claim under way still brings is given back."""
        self._closing = True
        await self._tasks.aclose()
        await self._quarantine.aclose()

    def wake(self) -> None:
        """There may be something to claim."""
        self._wake.set()

    def has_room_again(self) -> None:
        """A run ended: if some wait for want of room, one of them can be taken."""
        if self._quarantine.closed:
            self._quarantine.look_again()
            self._wake.set()
        elif self._full:
            self._wake.set()

    def wake_in(self, seconds: float) -> None:
        """There will be something to claim in ``seconds``."""
        asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def claim_next(self, thread: tuple[UUID, UUID]) -> None:
        """Take up the next run of a thread whose turn has become free here."""
        if self._host.room() > 0:
            await to_the_end(self._take(self._claims.claim_next(thread)))
        else:
            self._full = True
            self._signals.queue()

    def _hear(self, signal: Signal) -> None:
        if signal.queue or signal.is_empty:
            self._wake.set()

    async def _claim(self) -> None:
        await wait_for(self._wake, REAP_SECONDS)
        self._wake.clear()
        try:
            others_first = self._quarantine.others_first
            if not others_first:
                await to_the_end(self._take(self._quarantine.claim()))
            await self._take_others()
            if others_first:
                await to_the_end(self._take(self._quarantine.claim()))
        except BaseException:  # what it was woken for is still to be claimed
            self._wake.set()
            raise

    async def _take_others(self) -> None:
        while (room := self._host.room()) > 0:
            count = min(room, AT_ONCE)
            if await to_the_end(self._take(self._claims.claim(count))) < count:
                self._full = False
                return
        self._full = True

    async def _take(self, claiming: Awaitable[list[ClaimedRun]]) -> int:
        """Launch what ``claiming`` brings, or give it back when the process leaves meanwhile; how many."""
        claims = await claiming
        for claimed in claims:
            await self._begin(claimed)
        return len(claims)

    async def _begin(self, claimed: ClaimedRun) -> None:
        if self._closing:
            await self._give_back(claimed)
        else:
            self._host.launch(claimed)

    async def _give_back(self, claimed: ClaimedRun) -> None:
        """Put a run that did not begin here back in line as it was: it was not at fault, and a suspect stays one."""
        try:
            await self._claims.hand_over(claimed, Reason.CUT if claimed.crashed_mid_step else Reason.HANDOVER)
        except Unavailable:
            return  # its lease ends by itself
        self._signals.queue()

    async def _reap(self) -> None:
        ended = await self._cancels.finish_expired()
        released = await self._claims.release_expired()
        if released:
            self.wake_in(LEFT_TO_OTHERS)
        if released or ended:
            self._quarantine.look_again()
            self._wake.set()
            self._signals.queue()


EVERY_SECONDS = 5.0
MAX_COUNTED_RUNS = 10_000
"""Runs that are looked at: a queue that is longer is told as being so long."""

_QUEUE = """
select count(*) as depth, coalesce(extract(epoch from now() - min(available_at)), 0)::float8 as age
from (select available_at from runs where status = 'pending' and available_at <= now() limit $1) as due
"""
ORPHANED_SECONDS = 5.0
"""How long after its end a lease counts as not renewed: others look for such runs more often than that."""
_UNDER_WAY = """
select count(*) filter (where lease_until < now() - make_interval(secs => $1)) as orphaned,
  coalesce(extract(epoch from now() - min(started_at)), 0)::float8 as age
from runs where status = 'running'
"""


class QueueMetrics:
    """Looks at the queue, whose length is the same for every process that asks."""

    def __init__(self, database: Database, meters: Meters) -> None:
        self._database = database
        self._meters = meters
        self._tasks = Tasks("waiting")

    def start(self) -> None:
        """Begin to look."""
        self._tasks.repeat(self.refresh, EVERY_SECONDS, name="look")

    async def aclose(self) -> None:
        """Look no more."""
        await self._tasks.aclose()

    async def refresh(self) -> None:
        """Look once."""
        async with self._database.engine_connection() as connection:
            queue = await connection.fetchrow(_QUEUE, MAX_COUNTED_RUNS)
            under_way = await connection.fetchrow(_UNDER_WAY, ORPHANED_SECONDS)
        self._meters.queue_depth.set(queue["depth"])
        self._meters.queue_age.set(queue["age"])
        self._meters.runs_orphaned.set(under_way["orphaned"])
        self._meters.oldest_run.set(under_way["age"])
