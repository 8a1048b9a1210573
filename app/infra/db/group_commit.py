"""Group commit: batch concurrent writes into one statement.

While one group is in flight, the next accumulates; there is no timer, so a single caller does not wait and concurrent
callers share round trips and syncs (measurements and limits in docs/explanation/performance.md). The commit slot that
was used last is the first to be used again, so that sequential writes find the same connection with warm caches.

A group never waits long for a lock: entries of a tenant that holds one are sent apart, on the connections for that
tenant's own waits (``Database.tenant_connection``), and the slot continues with the others.

Every future is resolved: with its result, with the server's error for its entry, or with ``Unavailable`` when the
connection broke or it waited too long. Slots are essential tasks: they are restarted whatever ends them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from app.base.errors import AgentServiceError, Unavailable
from app.base.single_flight import resolve_after
from app.base.tasks import Heartbeat, Tasks
from app.infra.db import sql
from app.infra.db.engine import CONNECTION_BROKE, ROLLED_BACK_ERRORS, Database, unavailable

Entry = TypeVar("Entry")
Result = TypeVar("Result")

Execute = Callable[[asyncpg.Connection, Sequence[Entry]], Awaitable[Sequence[Result]]]

MAX_GROUP_SIZE = 256
"""Maximum entries of one group."""

MAX_REPEATS = 5
"""How often a group is sent again at once if the server cancels and rolls it back."""

SEND_SECONDS = 20.0
"""Timeout of one group: it takes milliseconds unless it waits for a lock. Then its connection is terminated."""

UNREACHABLE_SECONDS = 4.0
WAIT_SECONDS = 30.0
"""How long an entry waits while no slot is connected, and at most."""

CHECK_SECONDS = 1.0
IDLE_SECONDS = 10.0
"""A slot that is idle for this long checks its connection."""

CANARY_SECONDS = 5.0

BACK_OFF = 0.5
"""Maximum backoff between a slot's connection attempts, short because callers wait."""


class QueuedItem(NamedTuple):
    """A queued entry. ``entry`` is None for a canary, which is queued like an entry but writes nothing."""

    key: Hashable
    entry: Any
    future: "asyncio.Future[Any]"
    since: float


class GroupCommitter(Generic[Entry, Result]):
    """Commits entries in groups over ``slots`` connections.

    ``execute`` writes one group in one transaction and returns one result per entry, in order; with a transaction for
    each entry, the result may be the ``LockNotAvailableError`` of that one. A group that the server cancels and rolls
    back is sent again. Entries with equal ``key`` keep their order
    and never share a group. If the server refuses a group and the connection still works, its
    entries are sent one by one, so that only the faulty one fails.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        execute: "Execute[Entry, Result]",
        *,
        key: Callable[[Entry], Hashable],
        tenant: Callable[[Entry], UUID],
        slots: int = 2,
    ) -> None:
        self._database = database
        self._tenant = tenant
        self._apart: set[asyncio.Future[Any]] = set()
        self._execute = execute
        self._key = key
        self._waiting: deque[QueuedItem] = deque()
        self._busy: set[Hashable] = set()
        self._idle: dict[asyncio.Future[None], float] = {}
        self._called: asyncio.Future[None] | None = None
        self._connected = 0
        self._tasks = Tasks(name)
        self._slots = slots
        self._closed = False
        self._sent_at = time.monotonic()

    def start(self) -> None:
        """Start the commit slots and their checks."""
        for slot in range(self._slots):
            self._tasks.supervise(self._slot, name=f"slot-{slot}", essential=True, back_off=BACK_OFF)
        self._tasks.repeat(self._check, CHECK_SECONDS, name="check", essential=True)
        self._tasks.repeat(self._canary, CANARY_SECONDS, name="canary", essential=True)

    async def aclose(self) -> None:
        """Stop; entries that were not sent and later ones fail with ``Unavailable``."""
        self._closed = True
        await self._tasks.aclose()
        while self._waiting:
            _fail(self._waiting.popleft().future, _stopping())

    def submit(self, entry: Entry) -> "asyncio.Future[Result]":
        """Queue ``entry``; the future resolves to its result once its group is committed."""
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
        """If nothing was sent recently, send an empty entry to verify that entries would get through."""
        if time.monotonic() - self._sent_at > CANARY_SECONDS:
            await self._submit(self, None)

    async def _check(self) -> None:
        """Fail entries that have waited too long; have idle slots check their connections."""
        now = time.monotonic()
        timeout = WAIT_SECONDS if self._connected else UNREACHABLE_SECONDS
        while self._waiting and now - self._waiting[0].since > timeout:
            _fail(self._waiting.popleft().future, Unavailable("The database is unreachable. Try again.", retry_after=2))
        for slot, since in self._idle.items():
            if now - since > IDLE_SECONDS:
                _wake(slot)
        self._call()

    def _call(self) -> None:
        """Wake an idle slot if entries wait and no slot has been woken for them."""
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
            elif not item.future.done():  # else its caller has given up, and it was not sent
                self._busy.add(item.key)
                group.append(item)
        left.extend(self._waiting)
        self._waiting = left
        return group

    async def _slot(self, beat: Heartbeat) -> None:
        async with self._database.engine_connection() as connection:
            self._connected += 1
            try:
                await connection.execute(sql.GROUP_LOCK_TIMEOUT)
                while not connection.is_closed():
                    await self._serve(connection)
                    beat()
                raise Unavailable(CONNECTION_BROKE)
            except BaseException:
                connection.terminate()  # its state is unknown
                raise
            finally:
                self._connected -= 1
                self._call()

    async def _serve(self, connection: asyncpg.Connection) -> None:
        group = self._take()
        if not group:
            await self._wait_idle(connection)
            return
        if self._waiting:  # more than fits in this group
            self._call()
        late = asyncio.get_running_loop().call_later(SEND_SECONDS, connection.terminate)
        try:
            await self._send(connection, group)
            self._sent_at = time.monotonic()
        except (asyncpg.InsufficientResourcesError, *ROLLED_BACK_ERRORS) as error:
            self._database.disk.record_error(error)
            _fail_all(group, error)
            if connection.is_closed():  # else the server has answered, and the slot can continue
                raise
        except BaseException as error:
            _fail_all(group, error)
            raise
        finally:
            late.cancel()
            self._busy.difference_update(item.key for item in group if item.future not in self._apart)
            self._apart.difference_update(item.future for item in group)
            self._call()  # entries with the same keys may be sent now

    async def _wait_idle(self, connection: asyncpg.Connection) -> None:
        """Wait to be woken; without work, check the connection."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle[called] = time.monotonic()
        try:
            await called
        finally:  # also if the slot is cancelled: a pending wake-up passes to another slot
            self._idle.pop(called, None)
            if self._called is called:
                self._called = None
        if not self._waiting and not connection.is_closed():
            await connection.fetchval(sql.PING, timeout=SEND_SECONDS)

    async def _executed(self, connection: asyncpg.Connection, group: Sequence[QueuedItem]) -> Sequence[Any]:
        """Execute ``group``, again if the server rolls it back."""
        entries = [item.entry for item in group if item.entry is not None]
        for repeats_left in reversed(range(MAX_REPEATS + 1)):
            try:
                if len(entries) < len(group):
                    await connection.fetchval(sql.PING)
                return await self._execute(connection, entries) if entries else ()
            except ROLLED_BACK_ERRORS:
                if not repeats_left or connection.is_closed():
                    raise
        raise AssertionError

    async def _send(self, connection: asyncpg.Connection, group: Sequence[QueuedItem]) -> None:
        entries = [item for item in group if item.entry is not None]
        try:
            results = await self._executed(connection, group)
        except asyncpg.LockNotAvailableError:
            await self._split(connection, entries)
            entries, results = [], ()
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
            if isinstance(result, asyncpg.LockNotAvailableError):
                self._send_apart(item)
            else:
                _resolve(item.future, result)
        for item in group:
            if item.entry is None:
                _resolve(item.future, None)

    async def _split(self, connection: asyncpg.Connection, items: Sequence[QueuedItem]) -> None:
        """Send a group that would wait for a lock tenant by tenant, and the entries of the one that holds it apart."""
        by_tenant: dict[UUID, list[QueuedItem]] = {}
        for item in items:
            by_tenant.setdefault(self._tenant(item.entry), []).append(item)
        for group in by_tenant.values():
            if len(by_tenant) > 1:
                await self._send(connection, group)
            else:
                for item in group:
                    self._send_apart(item)

    def _send_apart(self, item: QueuedItem) -> None:
        """Send an entry on a connection for its tenant; entries with its key wait for it."""
        self._apart.add(item.future)
        task = self._tasks.start(self._wait_apart(item), name="apart")
        resolve_after(task, [item.future], _stopping())

    async def _wait_apart(self, item: QueuedItem) -> None:
        try:
            async with self._database.tenant_connection(self._tenant(item.entry)) as connection:
                (result,) = await self._execute(connection, [item.entry])
            if isinstance(result, asyncpg.LockNotAvailableError):
                raise result
            _resolve(item.future, result)
        except (asyncpg.PostgresError, AgentServiceError) as error:
            _fail(item.future, unavailable(error) or error)
        finally:
            self._busy.discard(item.key)
            self._call()


def _stopping() -> Unavailable:
    return Unavailable("The server is stopping.")


def _wake(slot: "asyncio.Future[None]") -> None:
    if not slot.done():
        slot.set_result(None)


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail_all(group: Sequence[QueuedItem], error: BaseException) -> None:
    for item in group:
        _fail(item.future, unavailable(error) or Unavailable(CONNECTION_BROKE, retry_after=2))


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
