"""Group commit: what many callers want written goes out as one statement.

While one group is on its way, the next gathers; there is no timer, so a lone caller waits for nobody and a crowd shares
round trips and syncs (measured: limits in docs/performance.md). The lane that was busy last is the first to go on, so
that whoever writes one thing after the other finds the same connection, its caches still warm.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import asyncpg
import structlog

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.db.engine import Database

log = structlog.get_logger(__name__)

Entry = TypeVar("Entry")
Result = TypeVar("Result")

Execute = Callable[[asyncpg.Connection, Sequence[Entry]], Awaitable[Sequence[Result]]]

MOST = 256
"""Entries in one group at the most."""


class Groups(Generic[Entry, Result]):
    """Sends entries in groups over ``lanes`` connections.

    ``execute`` writes one group in one transaction and returns one result per entry, in order. Entries with equal
    ``key`` keep their order and never share a group. When a group fails for a reason that lies in an entry, each of
    its entries is sent alone, so that only the guilty one fails.
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
        self._waiting: deque[tuple[Hashable, Entry, asyncio.Future[Result]]] = deque()
        self._busy: set[Hashable] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._called = False
        self._tasks = Tasks(name)
        self._lanes = lanes

    def start(self) -> None:
        """Begin to send."""
        for lane in range(self._lanes):
            self._tasks.start(self._lane(), name=f"lane-{lane}")

    async def aclose(self) -> None:
        """Stop; entries that were not sent fail with ``Unavailable``."""
        await self._tasks.aclose()
        while self._waiting:
            self._fail(self._waiting.popleft()[2], Unavailable("The server is stopping."))

    def submit(self, entry: Entry) -> "asyncio.Future[Result]":
        """Queue ``entry``; the future gives its result once its group is committed."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._key(entry), entry, future))
        self._call()
        return future

    def _call(self) -> None:
        """Wake a lane that has nothing to do, if none is on its way to what waits."""
        while self._idle and not self._called:
            lane = self._idle.pop()
            if not lane.done():  # it is, where the lane was cancelled
                lane.set_result(None)
                self._called = True

    def _take(self) -> list[tuple[Hashable, Entry, "asyncio.Future[Result]"]]:
        group: list[tuple[Hashable, Entry, asyncio.Future[Result]]] = []
        left: deque[tuple[Hashable, Entry, asyncio.Future[Result]]] = deque()
        passed: set[Hashable] = set()
        while self._waiting and len(group) < MOST:
            item = self._waiting.popleft()
            if item[0] in self._busy or item[0] in passed:
                passed.add(item[0])
                left.append(item)
            else:
                self._busy.add(item[0])
                group.append(item)
        left.extend(self._waiting)
        self._waiting = left
        return group

    async def _lane(self) -> None:
        while True:
            try:
                async with self._database.engine_connection() as connection:
                    while not connection.is_closed():
                        await self._serve(connection)
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("group_lane_reconnects", lane=self._tasks.name, error=type(error).__name__)
                await asyncio.sleep(0.2)

    async def _serve(self, connection: asyncpg.Connection) -> None:
        group = self._take()
        if not group:
            called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(called)
            await called
            self._called = False
            if connection.is_closed():
                self._call()
            return
        if self._waiting:  # more than one group may have
            self._call()
        try:
            await self._send(connection, group)
        except BaseException:
            for _, _, future in group:
                self._fail(future, Unavailable("The database connection broke.", retry_after=2))
            raise
        finally:
            self._busy.difference_update(item[0] for item in group)
            if self._waiting:  # for the keys of these
                self._call()

    async def _send(
        self, connection: asyncpg.Connection, group: list[tuple[Hashable, Entry, "asyncio.Future[Result]"]]
    ) -> None:
        try:
            results = await self._execute(connection, [entry for _, entry, _ in group])
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.DeadlockDetectedError) as error:
            if len(group) == 1:
                self._fail(group[0][2], error)
                return
            for item in group:
                await self._send(connection, [item])
            return
        for (_, _, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)

    @staticmethod
    def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)
