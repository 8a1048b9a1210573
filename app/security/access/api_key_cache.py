"""TTL cache of API key lookups; misses are looked up in batches."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.base.errors import Unavailable
from app.base.single_flight import SingleFlight
from app.base.tasks import Tasks
from app.base.ttl_cache import TTLCache
from app.security.access.structs import Principal

CACHE_TTL = 4.0
LOOK_UP_SECONDS = 2.0
"""Seconds for which a result is cached, counted from its lookup, and the timeout of a lookup. Both are below five: a
revoked key is refused everywhere within five seconds.
"""

WAIT_SECONDS = 4.0
"""Timeout of a request that waits for its lookup, including the batches queued before it."""

MAX_CACHED_KEYS = 10_000
MAX_CACHED_REJECTIONS = 1_000
"""Sizes of the caches. Invalid keys have their own, so that a flood of them does not evict valid keys."""

BATCH = 500
"""Keys per lookup statement. A worker's connections cannot send more invented keys than a few batches hold, so a valid
key that is new to the process waits for a few statements, never for one per invented key.
"""

MAX_WAITING = 20_000
"""Keys that may wait for a lookup; more are refused at once."""

TOO_SLOW = "The database takes too long to check the API key."

KeyDigest = tuple[str, bytes]
LookUpKeys = Callable[[Sequence[KeyDigest]], Awaitable[Sequence[Principal | None]]]


class ApiKeyCache:
    """Cache of principals by the digest of a key. ``look_up`` resolves (key id, digest) pairs; ``clock`` counts
    seconds.

    Keys that were valid recently have a queue of their own; each queue uses one connection at a time.
    """

    def __init__(self, look_up: LookUpKeys, clock: Callable[[], float]) -> None:
        self._good: TTLCache[bytes, Principal] = TTLCache(MAX_CACHED_KEYS, CACHE_TTL, clock=clock)
        self._bad: TTLCache[bytes, bool] = TTLCache(MAX_CACHED_REJECTIONS, CACHE_TTL, clock=clock)
        self._tasks = Tasks("keys")
        self._recent = _LookupBatch(look_up, self._tasks, clock, self._store)
        self._unknown = _LookupBatch(look_up, self._tasks, clock, self._store)

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    async def aclose(self) -> None:
        """Cancel lookups in progress; requests that wait for them are refused."""
        await self._tasks.aclose()

    async def get(self, key_id: str, digest: bytes) -> Principal | None:
        """Return the principal of a key, None if it is invalid.

        Raises what ``look_up`` raises, which is not cached, and ``Unavailable`` on timeout.
        """
        known = self._good.get(digest)
        if known is not None:
            return known
        if digest in self._bad:
            return None
        queue = self._recent if self._good.was_cached(digest) else self._unknown
        answer = queue.add(key_id, digest)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            raise Unavailable(TOO_SLOW) from error

    def _store(self, digest: bytes, until: float, principal: Principal | None) -> None:
        self._good.pop(digest)
        self._bad.pop(digest)
        if principal is None:
            self._bad.put(digest, True, until=until)
        else:
            self._good.put(digest, principal, until=until)


class _LookupBatch:
    """Queue of keys to look up, without duplicates. ``store`` gets each result and its expiry."""

    def __init__(
        self,
        look_up: LookUpKeys,
        tasks: Tasks,
        clock: Callable[[], float],
        store: Callable[[bytes, float, Principal | None], None],
    ) -> None:
        self._look_up = look_up
        self._tasks = tasks
        self._clock = clock
        self._store = store
        self._waiting: dict[bytes, tuple[str, asyncio.Future[Principal | None]]] = {}
        self._in_flight: SingleFlight[bytes, Principal | None] = SingleFlight()
        self._active = False

    def add(self, key_id: str, digest: bytes) -> "asyncio.Future[Principal | None]":
        """Queue a key and return the future of its result. Raises ``Unavailable`` if the queue is full."""
        answer = self._in_flight.get(digest)
        if answer is None:
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable("Too many API keys wait to be checked.")
            answer = self._in_flight.begin(digest)
            self._waiting[digest] = key_id, answer
            if not self._active:
                self._active = True
                self._tasks.start(self._drain(), name="look_up")
        return answer

    async def _drain(self) -> None:
        try:
            while self._waiting:
                first = list(self._waiting)[:BATCH]
                await self._resolve({digest: self._waiting.pop(digest) for digest in first})
        finally:
            self._active = False
            self._waiting.clear()
            self._in_flight.fail_all(Unavailable("API keys cannot be checked now."))

    async def _resolve(self, batch: dict[bytes, tuple[str, "asyncio.Future[Principal | None]"]]) -> None:
        until = self._clock() + CACHE_TTL
        keys = [(key_id, digest) for digest, (key_id, _) in batch.items()]
        lookup = self._tasks.start(self._results(keys), name="batch")
        await asyncio.wait({lookup}, timeout=LOOK_UP_SECONDS)
        if lookup.done():
            results = lookup.result()
        else:
            lookup.cancel()  # its connection may take seconds to close; no request may join a failed lookup
            results = Unavailable(TOO_SLOW)
        if isinstance(results, BaseException):
            for _, answer in batch.values():
                answer.set_exception(results)
            return
        for (digest, (_, answer)), principal in zip(batch.items(), results, strict=True):
            self._store(digest, until, principal)
            answer.set_result(principal)

    async def _results(self, keys: Sequence[KeyDigest]) -> Sequence[Principal | None] | BaseException:
        (results,) = await asyncio.gather(self._look_up(keys), return_exceptions=True)
        return results
