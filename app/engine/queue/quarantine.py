"""Quarantine of suspects: runs whose process died with them, perhaps because of one of them.

A suspect runs only next to former suspects. On their second attempt a group starts together, as most process deaths
are no run's fault. If the process dies again, each runs alone. While a suspect is unproven its process takes no
other run; other processes do. It is proven by committing a step, or by the process surviving it for some seconds,
more with each attempt; after many failures it stays alone until it ends, bounded by its agent's ``limits.seconds``.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import structlog

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.engine.entries import ClaimedRun
from app.engine.queue.claims import MAX_ATTEMPTS, RunQueue
from app.engine.queue.owned_runs import OwnedRun

log = structlog.get_logger(__name__)

PROOF_SECONDS = 1.0
PROOF_FACTOR = 5
"""Seconds that prove a suspect on its second attempt, and the factor for each further attempt."""

CLOSED_SECONDS = 15.0
"""How long a process takes no other runs while it hosts suspects. Then it takes them for at least as long."""
MAX_OPEN_SECONDS = 600.0
"""Upper bound of that open period, which doubles each time no suspect could start."""

GROUP = 8
"""Suspects that start together on their second attempt: one bad run makes so many run alone."""

POLL_SECONDS = 1.0
"""Minimum interval between queries for suspects while there are none."""


class Quarantine:
    """The suspects of one process with room for ``max_runs`` runs; ``wake`` triggers the next claim."""

    def __init__(
        self, claims: RunQueue, live: Mapping[UUID, OwnedRun], max_runs: int, wake: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._live = live
        self._max_runs = max_runs
        self._wake = wake
        self._tasks = Tasks("quarantine")
        self._unproven: set[tuple[UUID, int]] = set()
        self._closed_at = self._closed_until = self._open_until = self._poll_at = 0.0
        self._open_seconds = CLOSED_SECONDS
        self._began = False
        self._yielding = False
        self._poll_scheduled = False

    @property
    def closed(self) -> bool:
        """Whether no other run may start here now."""
        return bool(self._unproven) or (self._closed_until > 0 and time.monotonic() < self._closed_until)

    @property
    def others_first(self) -> bool:
        """Whether other runs are claimed before suspects now."""
        return not self._unproven and time.monotonic() < self._open_until

    @property
    def yielding(self) -> bool:
        """Whether runs that start only now shall also be handed over at their next step."""
        return self._yielding and self.closed

    async def aclose(self) -> None:
        """Wait for writes in progress."""
        await self._tasks.aclose()

    async def claim(self) -> list[ClaimedRun]:
        """Claim the next suspects, if any may start here now."""
        now = time.monotonic()
        if self._unproven:
            return []
        if now < self._poll_at:
            self._poll_in(self._poll_at - now)
            return []
        self._end_period(now)
        if self._closed_until or not self._live or now >= self._open_until:
            if group := await self._next_group():
                self._begin(group, now)
                return group
            if self._closed_until:
                if not self._live or not await self._claims.has_suspects():
                    self._open()
            elif self._live and await self._claims.reserve_suspect(CLOSED_SECONDS):
                self._start_yielding(now)
        self._poll_at = now + POLL_SECONDS
        return []

    async def _next_group(self) -> list[ClaimedRun]:
        """Claim a group of first-time suspects, or, in an otherwise empty process, one repeated suspect."""
        room = min(GROUP, self._max_runs - len(self._live))
        if room < 1 or not all(live.claimed.suspect for live in self._live.values()):
            return []
        group = await self._claims.claim_suspects(1, room)
        if not group and not self._live:
            group = await self._claims.claim_suspects(MAX_ATTEMPTS)
        return group

    def _poll_in(self, seconds: float) -> None:
        """Schedule the query for suspects that was skipped now."""
        if not self._poll_scheduled:
            self._poll_scheduled = True
            asyncio.get_running_loop().call_later(seconds, self._poll)

    def _poll(self) -> None:
        self._poll_scheduled = False
        self._wake()

    def launched(self, live: OwnedRun) -> None:
        """A suspect was started here: schedule its proof by survival."""
        attempt = live.claimed.attempt
        if attempt < MAX_ATTEMPTS:
            seconds = PROOF_SECONDS * PROOF_FACTOR ** max(0, attempt - 2)
            asyncio.get_running_loop().call_later(seconds, self.settled, live)

    def committed(self, live: OwnedRun) -> None:
        """A suspect has committed a step, which proves it."""
        self._tasks.start(self._reset_attempts(live.claimed), name="reset_attempts")
        self.settled(live)

    def settled(self, live: OwnedRun) -> None:
        """A suspect is proven or has ended; once all are, claim the next ones."""
        if self._unproven:
            self._unproven.discard((live.claimed.run_id, live.claimed.epoch))
            if not self._unproven:
                self._poll_at = 0.0
                self._wake()

    def poll_now(self) -> None:
        """Query for suspects at the next claim: a run has ended here, or there are new suspects."""
        self._poll_at = 0.0

    def _begin(self, group: Sequence[ClaimedRun], now: float) -> None:
        for claimed in group:
            log.info("suspect_resumed_apart", run_id=str(claimed.run_id), attempt=claimed.attempt, together=len(group))
        self._unproven = {(claimed.run_id, claimed.epoch) for claimed in group}
        if not self._closed_until:
            self._close(now)
        self._began = True

    def _start_yielding(self, now: float) -> None:
        """Take no more runs, and hand over the live ones at their next step."""
        log.info("making_way_for_suspects", runs=len(self._live), seconds=CLOSED_SECONDS)
        self._close(now)
        self._hand_over(draining=True)

    def _close(self, now: float) -> None:
        self._closed_at, self._closed_until = now, now + CLOSED_SECONDS
        self._began = False

    def _end_period(self, now: float) -> None:
        """End the closed period on time: other runs are claimed for at least as long, suspects queued or not."""
        if self._closed_until and now >= self._closed_until:
            if self._began:
                self._open_seconds = CLOSED_SECONDS
            self._open_until = now + max(self._open_seconds, now - self._closed_at)
            if not self._began:
                self._open_seconds = min(self._open_seconds * 2, MAX_OPEN_SECONDS)
            self._closed_until = 0.0
            self._hand_over(draining=False)

    def _open(self) -> None:
        """End the closed period early: no suspect is queued for this process."""
        self._closed_until = 0.0
        self._open_seconds = CLOSED_SECONDS
        self._hand_over(draining=False)

    def _hand_over(self, *, draining: bool) -> None:
        self._yielding = draining
        for live in self._live.values():
            if live.execution is not None and not live.claimed.suspect:
                live.execution.drain(draining=draining)

    async def _reset_attempts(self, claimed: ClaimedRun) -> None:
        try:
            await self._claims.reset_attempts(claimed)
        except Unavailable as error:
            log.warning("acquit_failed", run_id=str(claimed.run_id), error=type(error).__name__)
