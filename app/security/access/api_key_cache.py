"""What the database said about keys lately: believed for a few seconds, asked for in batches."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.security.access.structs import Principal

CACHE_TTL = 4.0
LOOK_UP_SECONDS = 2.0
"""How long an answer counts, from the moment its question is put, and how long it may take to come. Both are below
five: a revoked key is refused everywhere within five seconds."""

WAIT_SECONDS = 4.0
"""How long a request waits for its answer, with the questions that are put before its own."""

MAX_CACHED_KEYS = 10_000
MAX_CACHED_REJECTIONS = 1_000
"""Keys that are remembered, the valid apart from the others: a flood of bad keys pushes out bad ones alone."""

BATCH = 500
"""Keys that one statement looks up. A worker's connections cannot send more invented keys than a few batches hold, so a
valid key that is new to the process waits for a few statements, never for one per invented key."""

MAX_WAITING = 20_000
"""Keys that may wait for a statement; further ones are refused at once."""

TOO_SLOW = "The database takes too long to check the API key."

KeyDigest = tuple[str, bytes]
LookUpKeys = Callable[[Sequence[KeyDigest]], Awaitable[Sequence[Principal | None]]]


class ApiKeyCache:
    """Answers by the digest of a key. ``ask`` (key ids with digests) finds out; ``clock`` counts seconds.

    Keys that were good a while ago wait in a line of their own: each line uses one connection at a time.
    """

    def __init__(self, ask: LookUpKeys, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._good: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._bad: OrderedDict[bytes, float] = OrderedDict()
        self._tasks = Tasks("keys")
        self._known = _LookupBatch(ask, self._tasks, clock, self._keep)
        self._strangers = _LookupBatch(ask, self._tasks, clock, self._keep)

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    async def aclose(self) -> None:
        """End look-ups that are under way: those that wait for them are refused."""
        await self._tasks.aclose()

    async def of(self, key_id: str, digest: bytes) -> Principal | None:
        """The principal of a key; None for an invalid one.

        Raises what ``ask`` raises, which is not kept, and ``Unavailable`` when it takes too long.
        """
        moment = self._clock()
        known = self._good.get(digest)
        if known is not None and known[0] > moment:
            return known[1]
        if self._bad.get(digest, moment) > moment:
            return None
        line = self._strangers if known is None else self._known
        answer = line.add(key_id, digest)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            raise Unavailable(TOO_SLOW) from error

    def _keep(self, digest: bytes, until: float, principal: Principal | None) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        if principal is None:
            self._bad[digest] = until
            if len(self._bad) > MAX_CACHED_REJECTIONS:
                self._bad.popitem(last=False)
        else:
            self._good[digest] = until, principal
            if len(self._good) > MAX_CACHED_KEYS:
                self._good.popitem(last=False)


class _LookupBatch:
    """Keys that wait to be looked up, the same key once; ``keep`` gets each answer and until when it counts."""

    def __init__(
        self,
        ask: LookUpKeys,
        tasks: Tasks,
        clock: Callable[[], float],
        keep: Callable[[bytes, float, Principal | None], None],
    ) -> None:
        self._ask = ask
        self._tasks = tasks
        self._clock = clock
        self._keep = keep
        self._waiting: dict[bytes, tuple[str, asyncio.Future[Principal | None]]] = {}
        self._asking: dict[bytes, tuple[str, asyncio.Future[Principal | None]]] = {}
        self._active = False

    def add(self, key_id: str, digest: bytes) -> "asyncio.Future[Principal | None]":
        """The answer to come. Raises ``Unavailable`` when too many wait."""
        place = self._asking.get(digest) or self._waiting.get(digest)
        if place is None:
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable("Too many API keys wait to be checked.")
            place = self._waiting[digest] = key_id, asyncio.get_running_loop().create_future()
            if not self._active:
                self._active = True
                self._tasks.start(self._empty(), name="look_up")
        return place[1]

    async def _empty(self) -> None:
        try:
            while self._waiting:
                first = list(self._waiting)[:BATCH]
                self._asking = {digest: self._waiting.pop(digest) for digest in first}
                await self._answer(self._asking)
        finally:
            self._active = False
            for _, answer in (*self._asking.values(), *self._waiting.values()):
                if not answer.done():
                    _fail(answer, Unavailable("API keys cannot be checked now."))
            self._asking, self._waiting = {}, {}

    async def _answer(self, batch: dict[bytes, tuple[str, "asyncio.Future[Principal | None]"]]) -> None:
        until = self._clock() + CACHE_TTL
        keys = [(key_id, digest) for digest, (key_id, _) in batch.items()]
        asking = self._tasks.start(self._found(keys), name="ask")
        await asyncio.wait({asking}, timeout=LOOK_UP_SECONDS)
        if asking.done():
            found = asking.result()
        else:
            asking.cancel()  # its connection may take seconds to give up: no request joins a question that has failed
            found = Unavailable(TOO_SLOW)
        if isinstance(found, BaseException):
            for _, answer in batch.values():
                _fail(answer, found)
            return
        for (digest, (_, answer)), principal in zip(batch.items(), found, strict=True):
            self._keep(digest, until, principal)
            answer.set_result(principal)

    async def _found(self, keys: Sequence[KeyDigest]) -> Sequence[Principal | None] | BaseException:
        (found,) = await asyncio.gather(self._ask(keys), return_exceptions=True)
        return found


def _fail(answer: "asyncio.Future[Principal | None]", error: BaseException) -> None:
    answer.set_exception(error)
    answer.exception()  # perhaps no request waits for it any more
