"""A run while this process owns it, and the lease under which it does."""

import asyncio
import time

import msgspec

from app.base.lease import Lease
from app.bus.feed import Feed
from app.runs.entries import Claimed
from app.runs.execution import Execution
from app.runs.tracing import Untraced


class Live:
    """``done`` is set once the run has ended or was given up; ``left``: its code goes on without it.

    ``waiting``: it has not had its turn yet (``app.runs.memory``).
    """

    def __init__(self, claimed: Claimed, feed: Feed) -> None:
        self.claimed = claimed
        self.feed = feed
        self.lease = Lease(claimed.held_until)
        self.execution: Execution | None = None
        self.task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[list[bytes] | None] = asyncio.get_running_loop().create_future()
        self.awaited = False
        self.action = ""
        self.waiting: asyncio.Future[None] | None = None
        self.asked = 0.0
        self.finishing = False
        self.lost = self.away = False
        self.cut = False
        self.left = False
        self.settled = False
        self.trace = Untraced()
        self.started = time.monotonic()

    def cancel(self, action: str) -> None:
        """Stop at once, on a client's word (``app.runs.cancels``); without effect on a run that is ending anyway."""
        self.action = self.action or action
        self.asked = self.asked or time.monotonic()
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)
        if self.task is not None and self.execution is not None and not self.finishing:
            self.task.cancel()  # one that has not begun looks at ``action`` first

    def lose(self, *, away: bool = False) -> None:
        """Stop at once, because another process may own the run by now; ``away``: for want of the database alone."""
        if self.task is not None and not self.finishing:
            self.lost, self.away = True, away
            self.task.cancel()

    def read(self) -> Claimed:
        """Its request was read: from now on the run is known without the request's bytes, which may be many."""
        self.claimed = msgspec.structs.replace(self.claimed, request=b"")
        return self.claimed

    @property
    def stopped(self) -> bool:
        """Whether the engine has cancelled the run's task; else a ``CancelledError`` is one that its code raised."""
        return bool(self.action) or self.lost or self.cut

    def interrupt_step(self) -> None:
        """Stop at once, in the middle of a step: the process ends, and another one goes on with the run."""
        self.cut = True
        if self.task is not None:
            self.task.cancel()

    def leave(self) -> None:
        """Go on without the code of the run, which does not stop: it may neither write nor say anything from now on."""
        self.left = self.finishing = True
        if self.execution is not None:
            self.execution.seal()

    def fence(self) -> None:
        """The run was ended in our place: nothing of it starts or is written any more; its readers ask the database."""
        self.lost = True
        self.lease.end()
        self.feed.close(finished=False)
        if not self.done.done():
            self.done.set_result(None)
