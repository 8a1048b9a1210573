"""A cancel whose run's owner does not react: dead, stuck, or with a tool that does not listen.

Whoever recorded the cancel looks after the run a moment later and ends it in its owner's place. That is safe whatever
the owner still does: it writes under an epoch that has ended.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from uuid import UUID

import structlog

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.runs.cancels import GRACE_SECONDS, Cancels
from app.runs.live import Live

log = structlog.get_logger(__name__)

TOGETHER_SECONDS = 0.25
"""Cancels within this time are looked after together."""


class Enforcing:
    """Looks after cancels. ``live`` are the runs of this process; ``ended`` is called when threads have become free.

    ``leave`` is called with a run whose code does not react, once the run has ended without it.
    """

    def __init__(
        self,
        cancels: Cancels,
        live: Mapping[UUID, Live],
        ended: Callable[[], None],
        leave: Callable[[Live], None] = Live.leave,
    ) -> None:
        self._cancels = cancels
        self._live = live
        self._ended = ended
        self._leave = leave
        self._tasks = Tasks("enforcing")
        self._last = -1

    def soon(self) -> None:
        """A cancel was recorded."""
        now = asyncio.get_running_loop().time()
        period = int(now / TOGETHER_SECONDS)
        if period != self._last:
            self._last = period
            wait = (period + 1) * TOGETHER_SECONDS - now + GRACE_SECONDS
            self._tasks.start(self._look(wait), name="look")

    async def aclose(self) -> None:
        """Look no more; the reapers of other processes do."""
        await self._tasks.aclose()

    async def _look(self, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            ended = await self._cancels.finish_expired()
        except Unavailable as error:
            log.warning("enforcing_failed", error=str(error))
            return
        # what was asked for so long ago is over by now, whoever ended it
        for live in list(self._live.values()):
            if live.asked and not live.finishing and time.monotonic() - live.asked >= GRACE_SECONDS:
                live.fence()
                self._leave(live)
        if ended:
            self._ended()
