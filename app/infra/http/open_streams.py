"""The open responses of a process: their limits, and the timer that serves them all."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Protocol

import structlog
from litestar.types import Scope

from app.base.errors import Limited, Unavailable
from app.base.offload import ByteBudget
from app.base.tasks import Tasks
from app.infra.telemetry.meters import Meters

log = structlog.get_logger(__name__)

TICK = 0.25
"""Interval of the timer in seconds."""
HEARTBEAT = 5.0
STUCK = 10.0
"""Timeout of one ``send`` (at most a slice); then the reader is given up."""
SLICE = 64 * 1024
"""Bytes per ``send``."""
MAX_STREAMS = 10_000


LARGE = 1024 * 1024
"""Bytes above which a JSON response counts as large."""
MAX_BYTES = 160 * 1024 * 1024
MAX_BYTES_EACH = 64 * 1024 * 1024
"""Bytes of large responses in flight: of this process, and of one holder (a key)."""
WAIT_SECONDS = 1.0
MAX_WAITING = 2
"""Responses of one holder that wait for their turn, and their timeout: they are in memory already."""

CHECK_TICKS = 2
"""Ticks between checks of open streams' credentials: together with the TTL of a check
(``app.security.access.api_key_cache``) below five seconds.
"""

CHECKS_AT_ONCE = 8
"""Concurrent credential checks."""


class CredentialCheck(Protocol):
    """Checks whether the credential that a stream was opened with is still valid."""

    def credential(self, scope: Scope) -> Hashable:
        """Return the credential of a request; None if it needs no check."""
        ...

    def is_due(self, credential: Hashable) -> bool:
        """Whether it is time to call ``is_valid``."""
        ...

    async def is_valid(self, credential: Hashable) -> bool:
        """Whether it is still valid; True while that cannot be checked."""
        ...


class NoCredentialCheck:
    """Accepts everything, for servers without authentication (``CredentialCheck``)."""

    def credential(self, scope: Scope) -> Hashable:
        """Return None."""
        return None

    def is_due(self, credential: Hashable) -> bool:
        """Return False."""
        return False

    async def is_valid(self, credential: Hashable) -> bool:
        """Return True."""
        return True


class OpenResponse(Protocol):
    """An open response: ``holder`` is the owner whose limit it counts for, ``credential`` what it was opened with."""

    holder: Hashable
    credential: Hashable

    def stop(self, reason: str) -> None:
        """End it: the process drains, or its credential is no longer valid."""
        ...

    def on_tick(self, now: int) -> None:
        """Handle the tick ``now``: send a heartbeat, or detect a stuck reader."""
        ...


class LargeResponses:
    """The large JSON responses in flight in this process: a client that does not read keeps its own in memory."""

    def __init__(self, max_bytes: int = MAX_BYTES, each: int = MAX_BYTES_EACH) -> None:
        self.budget = ByteBudget(max_bytes, each, of="large responses are sent")
        self.waiting: Counter[Hashable] = Counter()

    async def reserve(self, holder: Hashable, size: int) -> int:
        """Reserve room for a response; return what to release, 0 for a small one.

        Raises ``Limited`` or ``Unavailable``.
        """
        if size <= LARGE:
            return 0
        if self.waiting[holder] >= MAX_WAITING:
            raise Limited("Large responses to this key wait to be read: request them one at a time.", 1)
        self.waiting[holder] += 1
        try:
            return await self.budget.acquire(holder, size, WAIT_SECONDS)
        finally:
            self.waiting[holder] -= 1
            if not self.waiting[holder]:
                del self.waiting[holder]

    def release(self, holder: Hashable, reserved: int) -> None:
        """Release what ``reserve`` returned."""
        if reserved:
            self.budget.release(holder, reserved)


class OpenStreams:
    """The open responses of this process: at most ``max_streams``, and ``max_per_holder`` per holder (a key)."""

    def __init__(
        self,
        meters: Meters,
        *,
        max_streams: int = MAX_STREAMS,
        max_per_holder: int = MAX_STREAMS,
        tick: float = TICK,
        heartbeat: float = HEARTBEAT,
        stuck: float = STUCK,
    ) -> None:
        self.tasks = Tasks("streams")
        self.access: CredentialCheck = NoCredentialCheck()
        self.large = LargeResponses()
        self.draining = False
        self.now = 0
        self.beat_ticks = max(1, round(heartbeat / tick))
        self.stuck_ticks = max(1, round(stuck / tick))
        self._max_streams = max_streams
        self._max_per_holder = max_per_holder
        self._held: Counter[Hashable] = Counter()
        self._tick = tick
        self._gauge = meters.streams_open
        self._rejected = meters.ratelimit_rejected
        meters.streams_limit.set(max_streams)
        self._open: set[OpenResponse] = set()
        self._by_credential: dict[Hashable, set[OpenResponse]] = {}
        self._checking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, holder: Hashable = None) -> None:
        """Check the limits before a run is created for a stream. Raises ``Unavailable`` or ``Limited``."""
        if self.draining:
            raise Unavailable("This server is shutting down. Try again: another one takes over.")
        if len(self._open) >= self._max_streams:
            raise Unavailable(
                f"This server has {self._max_streams} open streams, which is its limit. Try again in a moment."
            )
        if self._held[holder] >= self._max_per_holder:
            self._rejected.add(1, "streams")
            raise Limited(
                f"This key has {self._max_per_holder} open streams on this process, which is its limit: close one."
            )

    def drain(self) -> None:
        """End all open streams: readers are asked to reconnect, long polls are cut so that they join again."""
        self.draining = True
        for stream in self._open:
            stream.stop("drain")

    def opened(self, stream: OpenResponse) -> None:
        """Register ``stream``."""
        self._open.add(stream)
        if stream.credential is not None:
            self._by_credential.setdefault(stream.credential, set()).add(stream)
        self._held[stream.holder] += 1
        self._gauge.add(1)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._on_timer)

    def closed(self, stream: OpenResponse) -> None:
        """Unregister ``stream``."""
        self._open.discard(stream)
        if stream.credential is not None:
            same = self._by_credential[stream.credential]
            same.discard(stream)
            if not same:
                del self._by_credential[stream.credential]
        self._held[stream.holder] -= 1
        if not self._held[stream.holder]:
            del self._held[stream.holder]
        self._gauge.add(-1)

    def _on_timer(self) -> None:
        again = asyncio.get_running_loop().call_later
        self._timer = again(self._tick, self._on_timer) if self._open else None  # first: an error stops no later tick
        self.now += 1
        if self.now % CHECK_TICKS == 0 and self._by_credential and (self._checking is None or self._checking.done()):
            self._checking = self.tasks.start(self._check(), name="check")
        for stream in self._open:
            stream.on_tick(self.now)

    async def _check(self) -> None:
        """End streams whose credential was revoked or has expired."""
        credentials = [one for one in self._by_credential if self.access.is_due(one)]
        for at in range(0, len(credentials), CHECKS_AT_ONCE):
            part = credentials[at : at + CHECKS_AT_ONCE]
            valid = await asyncio.gather(*map(self.access.is_valid, part), return_exceptions=True)
            for credential, good in zip(part, valid, strict=True):
                if isinstance(good, BaseException):  # of the operator's code, perhaps: it ends no other check
                    log.warning("credential_not_checked", reason=type(good).__name__, exc_info=good)
                elif not good:
                    for stream in list(self._by_credential.get(credential, ())):
                        stream.stop("revoked")
