"""Lets suspects go on apart: runs whose process died with them, perhaps because of one of them.

A suspect runs where no other run does but former suspects. On their second attempt some begin together: most ends of
processes are no run's fault. If their process dies again, each goes on alone. While one is unproven the process takes
nothing else: other processes do. It is proven by a step that it commits or by some seconds for which the process
survives it, more with each attempt; one that has often failed stays alone until its end, which its agent's
``limits.seconds`` bounds.
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
"""What proves a suspect on its second attempt; with each further one it takes so many times longer."""

CLOSED_SECONDS = 15.0
"""How long a process takes no other runs for the sake of suspects. Then it takes them again for at least as long."""
MAX_OPEN_SECONDS = 600.0
"""A process in which no suspect could begin stays open for twice as long each time, up to this."""

GROUP = 8
"""Suspects that begin together on their second attempt. If one of them is bad, so many have to go on alone."""

LOOK_SECONDS = 1.0
"""Suspects are looked for no more often, as long as none are found."""


class Quarantine:
    """The suspects of one process, which has room for ``max_attempts`` runs; ``wake`` has suspects and other runs
    claimed.
    """

    def __init__(
        self, claims: RunQueue, live: Mapping[UUID, OwnedRun], max_attempts: int, wake: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._live = live
        self._most = max_attempts
        self._wake = wake
        self._tasks = Tasks("quarantine")
        self._unproven: set[tuple[UUID, int]] = set()
        self._closed_at = self._closed_until = self._open_until = self._look_at = 0.0
        self._open_seconds = CLOSED_SECONDS
        self._began = False
        self._making_way = False
        self._looks = False

    @property
    def closed(self) -> bool:
        """Whether no other run may begin here now."""
        return bool(self._unproven) or (self._closed_until > 0 and time.monotonic() < self._closed_until)

    @property
    def others_first(self) -> bool:
        """Whether other runs have their turn now, before suspects."""
        return not self._unproven and time.monotonic() < self._open_until

    @property
    def making_way(self) -> bool:
        """Whether runs that begin only now shall be handed over at their next step, as those that live here."""
        return self._making_way and self.closed

    async def aclose(self) -> None:
        """Let what is on its way end."""
        await self._tasks.aclose()

    async def claim(self) -> list[ClaimedRun]:
        """The next suspects, if some may begin here now."""
        now = time.monotonic()
        if self._unproven:
            return []
        if now < self._look_at:
            self._look_in(self._look_at - now)
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
                self._make_way(now)
        self._look_at = now + LOOK_SECONDS
        return []

    async def _next_group(self) -> list[ClaimedRun]:
        """Some that are suspects for the first time, or one that was one before, in a process of its own."""
        room = min(GROUP, self._most - len(self._live))
        if room < 1 or not all(live.claimed.suspect for live in self._live.values()):
            return []
        group = await self._claims.claim_suspects(1, room)
        if not group and not self._live:
            group = await self._claims.claim_suspects(MAX_ATTEMPTS)
        return group

    def _look_in(self, seconds: float) -> None:
        """Look again then: what a look now is for has not been seen to."""
        if not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._looks = False
        self._wake()

    def launched(self, live: OwnedRun) -> None:
        """A suspect lives here now: it proves itself by surviving for long enough."""
        attempt = live.claimed.attempt
        if attempt < MAX_ATTEMPTS:
            seconds = PROOF_SECONDS * PROOF_FACTOR ** max(0, attempt - 2)
            asyncio.get_running_loop().call_later(seconds, self.settled, live)

    def committed(self, live: OwnedRun) -> None:
        """A suspect has finished a step, so it is none."""
        self._tasks.start(self._acquit(live.claimed), name="acquit")
        self.settled(live)

    def settled(self, live: OwnedRun) -> None:
        """A suspect is proven, or has ended: when all are, the next ones may begin."""
        if self._unproven:
            self._unproven.discard((live.claimed.run_id, live.claimed.epoch))
            if not self._unproven:
                self._look_at = 0.0
                self._wake()

    def look_again(self) -> None:
        """A run has ended here, or there are new suspects."""
        self._look_at = 0.0

    def _begin(self, group: Sequence[ClaimedRun], now: float) -> None:
        for claimed in group:
            log.info("suspect_goes_on_apart", run_id=str(claimed.run_id), attempt=claimed.attempt, together=len(group))
        self._unproven = {(claimed.run_id, claimed.epoch) for claimed in group}
        if not self._closed_until:
            self._close(now)
        self._began = True

    def _make_way(self, now: float) -> None:
        """Take no more runs, and hand over at their next step those that live here."""
        log.info("making_way_for_suspects", runs=len(self._live), seconds=CLOSED_SECONDS)
        self._close(now)
        self._hand_over(draining=True)

    def _close(self, now: float) -> None:
        self._closed_at, self._closed_until = now, now + CLOSED_SECONDS
        self._began = False

    def _end_period(self, now: float) -> None:
        """After some time other runs have their turn for at least as long, whether suspects wait or not."""
        if self._closed_until and now >= self._closed_until:
            if self._began:
                self._open_seconds = CLOSED_SECONDS
            self._open_until = now + max(self._open_seconds, now - self._closed_at)
            if not self._began:
                self._open_seconds = min(self._open_seconds * 2, MAX_OPEN_SECONDS)
            self._closed_until = 0.0
            self._hand_over(draining=False)

    def _open(self) -> None:
        """No suspect waits for this process."""
        self._closed_until = 0.0
        self._open_seconds = CLOSED_SECONDS
        self._hand_over(draining=False)

    def _hand_over(self, *, draining: bool) -> None:
        self._making_way = draining
        for live in self._live.values():
            if live.execution is not None and not live.claimed.suspect:
                live.execution.draining = draining

    async def _acquit(self, claimed: ClaimedRun) -> None:
        try:
            await self._claims.acquit(claimed)
        except Unavailable as error:
            log.warning("acquit_failed", run_id=str(claimed.run_id), error=type(error).__name__)
