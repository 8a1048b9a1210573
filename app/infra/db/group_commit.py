"""Group commit: what many callers want written goes out as one statement.

While one group is on its way, the next gathers; there is no timer, so a lone caller waits for nobody and a crowd shares
round trips and syncs (figures: docs/explanation/performance.md). The lane that was
busy last takes the next group, so that a caller that writes in sequence finds a connection with warm caches.

Every future is resolved: with its result, with the error that the server gave for its entry, or with ``Unavailable``
when its connection broke or it waited for too long. Lanes are essential tasks: whatever ends one, it is started again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg

from app.base.errors import Unavailable
from app.base.tasks import Heartbeat, Tasks
from app.infra.db.engine import Database, unavailable

Entry = TypeVar("Entry")
Result = TypeVar("Result")

Execute = Callable[[asyncpg.Connection, Sequence[Entry]], Awaitable[Sequence[Result]]]

MAX_GROUP_SIZE = 256
"""Entries in one group at the most."""

SEND_SECONDS = 20.0
"""How long one group may take: milliseconds, unless it waits for a lock. Then its connection is given up."""

UNREACHABLE_SECONDS = 4.0
WAIT_SECONDS = 30.0
"""How long an entry waits for its group while no lane has a connection, and in any case."""

LOOK_SECONDS = 1.0
IDLE_SECONDS = 10.0
"""A lane without work for so long makes sure that its connection works."""

CANARY_SECONDS = 5.0

BACK_OFF = 0.5
"""The longest pause between two tries of a lane to connect: callers wait for it."""


class QueuedItem(NamedTuple):
    """An entry in line. ``entry`` is None for a canary, which goes the way of all entries and writes nothing."""

    key: Hashable
    entry: Any
    future: "asyncio.Future[Any]"
    since: float


class GroupCommitter(Generic[Entry, Result]):
    """Sends entries in groups over ``lanes`` connections.

    ``execute`` writes one group in one transaction and returns one result per entry, in order. Entries with equal
    ``key`` keep their order and never share a group. When the server refuses a group over a connection that goes on to
    work, each of its entries is sent alone, so that only the guilty one fails.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        execute: "Execute[Entry, Result]",
        *,
        key: Callable[[Entry], Hashable],
        lanes: int = 2,
    ) -> None:
        self._database = database
        self._execute = execute
        self._key = key
        self._waiting: deque[QueuedItem] = deque()
        self._busy: set[Hashable] = set()
        self._idle: dict[asyncio.Future[None], float] = {}
        self._called: asyncio.Future[None] | None = None
        self._connected = 0
        self._tasks = Tasks(name)
        self._lanes = lanes
        self._closed = False
        self._sent_at = time.monotonic()

    def start(self) -> None:
        """Begin to send."""
        for lane in range(self._lanes):
            self._tasks.supervise(self._lane, name=f"lane-{lane}", essential=True, back_off=BACK_OFF)
        self._tasks.repeat(self._look, LOOK_SECONDS, name="look", essential=True)
        self._tasks.repeat(self._canary, CANARY_SECONDS, name="canary", essential=True)

    async def aclose(self) -> None:
        """Stop; entries that were not sent fail with ``Unavailable``, and so does what is submitted later."""
        self._closed = True
        await self._tasks.aclose()
        while self._waiting:
            _fail(self._waiting.popleft().future, _stopping())

    def submit(self, entry: Entry) -> "asyncio.Future[Result]":
        """Queue ``entry``; the future gives its result once its group is committed."""
        return self._submit(self._key(entry), entry)

    def _submit(self, key: Hashable, entry: Entry | None) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(_stopping())
            return future
        self._waiting.append(QueuedItem(key, entry, future, time.monotonic()))
        self._call()
        return future

    async def _canary(self) -> None:
        """Where nothing was sent lately, send nothing: evidence that entries would get through."""
        if time.monotonic() - self._sent_at > CANARY_SECONDS:
            await self._submit(self, None)

    async def _look(self) -> None:
        """Fail entries that have waited for too long; have lanes that were idle for long look after themselves."""
        now = time.monotonic()
        timeout = WAIT_SECONDS if self._connected else UNREACHABLE_SECONDS
        while self._waiting and now - self._waiting[0].since > timeout:
            _fail(self._waiting.popleft().future, Unavailable("The database cannot be reached.", retry_after=2))
        for lane, since in self._idle.items():
            if now - since > IDLE_SECONDS:
                _wake(lane)
        self._call()

    def _call(self) -> None:
        """Wake a lane that has nothing to do, if none is on its way to what waits."""
        if self._waiting and self._called is None and self._idle:
            self._called, _ = self._idle.popitem()
            _wake(self._called)

    def _take(self) -> list[QueuedItem]:
        group: list[QueuedItem] = []
        left: deque[QueuedItem] = deque()
        passed: set[Hashable] = set()
        while self._waiting and len(group) < MAX_GROUP_SIZE:
            item = self._waiting.popleft()
            if item.key in self._busy or item.key in passed:
                passed.add(item.key)
                left.append(item)
            elif not item.future.done():  # its caller is gone, and it was not sent
                self._busy.add(item.key)
                group.append(item)
        left.extend(self._waiting)
        self._waiting = left
        return group

    async def _lane(self, beat: Heartbeat) -> None:
        async with self._database.engine_connection() as connection:
            self._connected += 1
            try:
                while not connection.is_closed():
                    await self._serve(connection)
                    beat()
                raise Unavailable("The database connection broke.")
            except BaseException:
                connection.terminate()  # what it was in the middle of is unknown
                raise
            finally:
                self._connected -= 1
                self._call()

    async def _serve(self, connection: asyncpg.Connection) -> None:
        group = self._take()
        if not group:
            await self._idles(connection)
            return
        if self._waiting:  # more than one group may have
            self._call()
        late = asyncio.get_running_loop().call_later(SEND_SECONDS, connection.terminate)
        try:
            await self._send(connection, group)
            self._sent_at = time.monotonic()
        except asyncpg.InsufficientResourcesError as error:
            self._database.disk.notice(error)
            _fail_all(group, error)
            if connection.is_closed():  # else the server has answered, and the lane can go on
                raise
        except BaseException as error:
            _fail_all(group, error)
            raise
        finally:
            late.cancel()
            self._busy.difference_update(item.key for item in group)
            self._call()  # for the keys of these

    async def _idles(self, connection: asyncpg.Connection) -> None:
        """Wait for a call; one that finds no work makes sure that the connection works."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle[called] = time.monotonic()
        try:
            await called
        finally:  # also where the lane ends here: a call that came meanwhile goes to another one
            self._idle.pop(called, None)
            if self._called is called:
                self._called = None
        if not self._waiting and not connection.is_closed():
            await connection.fetchval("select 1", timeout=SEND_SECONDS)

    async def _send(self, connection: asyncpg.Connection, group: Sequence[QueuedItem]) -> None:
        entries = [item for item in group if item.entry is not None]
        try:
            if len(entries) < len(group):
                await connection.fetchval("select 1")
            results = await self._execute(connection, [item.entry for item in entries]) if entries else ()
        except asyncpg.PostgresError as error:
            if connection.is_closed() or unavailable(error) is not None:
                raise
            if len(group) == 1:
                _fail(group[0].future, error)
                return
            for item in group:
                await self._send(connection, [item])
            return
        for item, result in zip(entries, results, strict=True):
            _resolve(item.future, result)
        for item in group:
            _resolve(item.future, None)  # canaries: all others are


def _stopping() -> Unavailable:
    return Unavailable("The server is stopping.")


def _wake(lane: "asyncio.Future[None]") -> None:
    if not lane.done():
        lane.set_result(None)


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail_all(group: Sequence[QueuedItem], error: BaseException) -> None:
    for item in group:
        _fail(item.future, unavailable(error) or Unavailable("The database connection broke.", retry_after=2))


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
