"""What the database said of keys lately: believed for a few seconds, asked for once at a time."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from app.access.structs import Principal
from app.base.errors import Unavailable

BELIEVED_SECONDS = 4.0
LOOK_UP_SECONDS = 2.0
"""How long an answer counts, from the moment its question is put, and how long it may take to come. Both are below
five: a revoked key is refused everywhere within five seconds."""

MOST_GOOD = 10_000
MOST_BAD = 1_000
"""Keys that are remembered, the valid apart from the others: a flood of bad keys pushes out bad ones alone."""

STRANGERS = 2
"""Connections that keys without a good answer so far may use at once. A flood of bad keys waits for them in line; keys
that were good a while ago, and everybody's requests, have the rest of the pool."""

Ask = Callable[[str, bytes], Awaitable[Principal | None]]


class Verdicts:
    """Answers by the digest of a key. ``ask`` (key id, digest) finds out; ``clock`` counts seconds."""

    def __init__(self, ask: Ask, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._good: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._bad: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[Principal | None]] = {}
        self._strangers = asyncio.Semaphore(STRANGERS)

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    async def of(self, key_id: str, digest: bytes) -> Principal | None:
        """Who the key stands for; None where it is no valid one.

        Raises what ``ask`` raises, which is not kept, and ``Unavailable`` when it takes too long.
        """
        moment = self._clock()
        known = self._good.get(digest)
        if known is not None and known[0] > moment:
            return known[1]
        if self._bad.get(digest, moment) > moment:
            return None
        while (asking := self._asking.get(digest)) is not None:
            await asyncio.wait((asking,))
            if not asking.cancelled():  # the request that asked went away: this one asks
                return asking.result()
        return await self._find_out(key_id, digest)

    async def _find_out(self, key_id: str, digest: bytes) -> Principal | None:
        asking = self._asking[digest] = asyncio.get_running_loop().create_future()
        until = self._clock() + BELIEVED_SECONDS
        try:
            principal = await self._ask_in_time(key_id, digest)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        except BaseException as error:
            asking.set_exception(error)
            asking.exception()  # perhaps nobody waits for it
            raise
        finally:
            del self._asking[digest]
        asking.set_result(principal)
        self._keep(digest, until, principal)
        return principal

    async def _ask_in_time(self, key_id: str, digest: bytes) -> Principal | None:
        line = contextlib.nullcontext() if digest in self._good else self._strangers
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS), line:
                return await self._ask(key_id, digest)
        except TimeoutError as error:
            raise Unavailable("The database takes too long to check the API key.") from error

    def _keep(self, digest: bytes, until: float, principal: Principal | None) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        if principal is None:
            self._bad[digest] = until
            if len(self._bad) > MOST_BAD:
                self._bad.popitem(last=False)
        else:
            self._good[digest] = until, principal
            if len(self._good) > MOST_GOOD:
                self._good.popitem(last=False)
