"""The open answers of a process: how many there may be, and the one timer that looks after them all."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Protocol

from litestar.types import Scope

from app.base.errors import Limited, Unavailable
from app.base.tasks import Tasks
from app.infra.telemetry.meters import Meters

TICK = 0.25
"""Seconds between two looks at the open streams."""
HEARTBEAT = 5.0
STUCK = 10.0
"""Seconds that one ``send`` (a slice at most) may take before its reader is given up."""
SLICE = 64 * 1024
"""Bytes that are sent at once."""
MAX_STREAMS = 10_000


CHECK_TICKS = 2
"""Ticks between two checks of the credentials of open streams: with the seconds for which a check counts
(``app.security.access.api_key_cache``) below five seconds."""

CHECKS_AT_ONCE = 8
"""Credentials that are checked at the same time."""


class CredentialCheck(Protocol):
    """Knows whether the credential that a stream was opened with is still good."""

    def credential(self, scope: Scope) -> Hashable:
        """The credential of a request; None where none is checked."""
        ...

    def is_due(self, credential: Hashable) -> bool:
        """Whether it is time to ask ``is_valid``."""
        ...

    async def is_valid(self, credential: Hashable) -> bool:
        """Whether it is still good; True as long as that cannot be found out."""
        ...


class NoCredentialCheck:
    """Implements ``CredentialCheck`` where authentication is off."""

    def credential(self, scope: Scope) -> Hashable:
        """None is checked."""
        return None

    def is_due(self, credential: Hashable) -> bool:
        """Never."""
        return False

    async def is_valid(self, credential: Hashable) -> bool:
        """Any."""
        return True


class OpenResponse(Protocol):
    """An answer that is open: ``holder`` is whose share it takes, ``credential`` what it was opened with."""

    holder: Hashable
    credential: Hashable

    def stop(self, reason: str) -> None:
        """End it: the process drains, or its credential is not good any more."""
        ...

    def on_tick(self, now: int) -> None:
        """The tick ``now``: keep it alive, or find that nobody reads it."""
        ...


class OpenStreams:
    """The open answers of this process, at most ``most``, and at most ``most_each`` of one holder (a key)."""

    def __init__(
        self,
        meters: Meters,
        *,
        most: int = MAX_STREAMS,
        most_each: int = MAX_STREAMS,
        tick: float = TICK,
        heartbeat: float = HEARTBEAT,
        stuck: float = STUCK,
    ) -> None:
        self.tasks = Tasks("streams")
        self.access: CredentialCheck = NoCredentialCheck()
        self.draining = False
        self.now = 0
        self.beat_ticks = max(1, round(heartbeat / tick))
        self.stuck_ticks = max(1, round(stuck / tick))
        self._most = most
        self._most_each = most_each
        self._held: Counter[Hashable] = Counter()
        self._tick = tick
        self._gauge = meters.streams_open
        self._rejected = meters.ratelimit_rejected
        meters.streams_limit.set(most)
        self._open: set[OpenResponse] = set()
        self._by_credential: dict[Hashable, set[OpenResponse]] = {}
        self._checking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, holder: Hashable = None) -> None:
        """Ask before a run is made for a stream. Raises ``Unavailable`` or ``Limited`` when no more may open."""
        if self.draining:
            raise Unavailable("This server is about to stop; another one takes over.")
        if len(self._open) >= self._most:
            raise Unavailable(f"This server has its {self._most} streams open; try again in a moment.")
        if self._held[holder] >= self._most_each:
            self._rejected.add(1, "streams")
            raise Limited(f"This key has its {self._most_each} streams open on this process: close one.")

    def drain(self) -> None:
        """End all open streams: readers are told to come back, waiting ones are cut so that they join again."""
        self.draining = True
        for stream in self._open:
            stream.stop("drain")

    def opened(self, stream: OpenResponse) -> None:
        """Look after ``stream`` from now on."""
        self._open.add(stream)
        if stream.credential is not None:
            self._by_credential.setdefault(stream.credential, set()).add(stream)
        self._held[stream.holder] += 1
        self._gauge.add(1)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def closed(self, stream: OpenResponse) -> None:
        """``stream`` has ended."""
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

    def _look(self) -> None:
        self.now += 1
        for stream in self._open:
            stream.on_tick(self.now)
        if self.now % CHECK_TICKS == 0 and self._by_credential and (self._checking is None or self._checking.done()):
            self._checking = self.tasks.start(self._check(), name="check")
        again = asyncio.get_running_loop().call_later
        self._timer = again(self._tick, self._look) if self._open else None

    async def _check(self) -> None:
        """End the streams whose credential was revoked or has expired."""
        credentials = [one for one in self._by_credential if self.access.is_due(one)]
        for at in range(0, len(credentials), CHECKS_AT_ONCE):
            part = credentials[at : at + CHECKS_AT_ONCE]
            valid = await asyncio.gather(*map(self.access.is_valid, part))
            for credential, good in zip(part, valid, strict=True):
                for stream in () if good else list(self._by_credential.get(credential, ())):
                    stream.stop("revoked")
