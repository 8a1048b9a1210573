"""Connection pools of a database, one row each in ``POOLS``: metrics, fair admission, tracking of open connections."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import asyncpg
import msgspec
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.base.fair_semaphore import FairSemaphore, Waiter
from app.infra.db.sqlalchemy_internals import MeasuredPool
from app.infra.db.url import to_sqlalchemy

SPARE_PART = 5
"""One fifth of a pool is reserved for tenants that hold no connection yet."""

APP_ROLE = "agent_app"

ENGINE_ROLE = "agent_engine"

LOCK_TIMEOUT = "3s"
"""How long a request's statement waits for a lock while it holds a connection."""

COMMAND_SECONDS = 60.0
"""Timeout of any statement."""

IDLE_IN_TRANSACTION = "15s"
"""Time without a statement after which PostgreSQL ends a transaction: its client may have died without closing the
connection, and others wait for the locks.
"""

REFUSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)


class PoolGate(FairSemaphore):
    """Fair semaphore over the connections of ``pool``: in the block of a slot, a connection is free.

    SQLAlchemy's own queue needs a greenlet per waiter, more than ten kilobytes; this needs a fraction of one. Raises
    ``TimeoutError`` after the pool's timeout.
    """

    def __init__(self, pool: MeasuredPool) -> None:
        super().__init__(pool.size(), spare=pool.size() // SPARE_PART)
        self._pool = pool

    async def _until(self, waiter: Waiter) -> None:
        with self._pool.waited():
            async with asyncio.timeout(self._pool.timeout()):
                await waiter


class ConnectionTracker:
    """Tracks the open connections of a database, so that they can be closed or replaced."""

    def __init__(self) -> None:
        self._open: WeakSet[asyncpg.Connection] = WeakSet()
        self._suspect: WeakSet[asyncpg.Connection] = WeakSet()
        self.cut = False

    def opened(self, connection: Any, _record: Any) -> None:
        """Track a connection (a pool event)."""
        self._open.add(connection.driver_connection)

    def suspect_connections(self) -> None:
        """Mark all open connections as possibly dead."""
        self._suspect |= self._open

    def closing(self, connection: Any, _record: Any) -> None:
        """Terminate a suspect connection instead of waiting for its server (a pool event)."""
        if self.is_suspect(connection.driver_connection):
            connection.driver_connection.terminate()

    def is_suspect(self, connection: asyncpg.Connection) -> bool:
        """Whether ``connection`` was open when connections were marked as suspect."""
        return connection in self._suspect

    def abort(self) -> None:
        """Terminate all connections, whatever they do, and refuse new ones."""
        self.cut = True
        for connection in list(self._open):
            connection.terminate()


ENGINE_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""The engine's statements join arrays of a group with rows by primary key. Planning them for each group costs more than
running them, and a plan made for empty tables must stay right when they have grown: so one generic plan, and always the
index.
"""


Addresses = Callable[[], Sequence[str]]
"""Returns the addresses of one database, which differ in user and password; the first that works is used."""


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of connections: their role, the settings of their sessions, and what they are for.

    ``size`` None: every block opens a connection of its own. ``direct``: not through a pooler. ``measured``: it has
    metrics.
    """

    purpose: str
    role: str
    settings: dict[str, str]
    size: int | None = None
    direct: bool = False
    measured: bool = False


POOLS = {
    "requests": PoolSpec(
        purpose="requests: row level security shows them one tenant",
        role=APP_ROLE,
        settings={"lock_timeout": LOCK_TIMEOUT},
        size=10,
        measured=True,
    ),
    "engine": PoolSpec(
        purpose="journal and claims, over all tenants", role=ENGINE_ROLE, settings=ENGINE_PLANS, size=10, measured=True
    ),
    "tenants": PoolSpec(
        purpose="work of the engine for one tenant, which may wait for locks of that tenant",
        role=ENGINE_ROLE,
        settings={**ENGINE_PLANS, "lock_timeout": LOCK_TIMEOUT},
        size=5,
        measured=True,
    ),
    "probe": PoolSpec(
        purpose="probes, which must not wait for requests",
        role=APP_ROLE,
        settings={"lock_timeout": LOCK_TIMEOUT},
        size=1,
    ),
    "direct": PoolSpec(
        purpose="LISTEN, and checks past every pool", role=ENGINE_ROLE, settings=ENGINE_PLANS, direct=True
    ),
}


def _discard_standby(context: ExceptionContext) -> None:
    """A server that became read-only is a standby now: discard all connections to it (an engine event)."""
    if isinstance(getattr(context.original_exception, "__cause__", None), asyncpg.ReadOnlySQLTransactionError):
        context.is_disconnect = True


def open_pool(spec: PoolSpec, addresses: Addresses, tracker: ConnectionTracker) -> AsyncEngine:
    """Open the pool ``spec`` of the database at ``addresses``; its connections are known to ``tracker``."""
    address, connect_args = to_sqlalchemy(addresses()[0])
    settings = {"role": spec.role, "application_name": f"agent-service {spec.role}", "jit": "off"}
    # a timeout set on the role or the database would also cancel what may take long, such as the deletion of a tenant
    settings |= {"statement_timeout": "0", "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION, **spec.settings}
    pool: dict[str, Any] = {"poolclass": NullPool}
    if spec.size is not None:
        pool = {"poolclass": MeasuredPool, "pool_size": spec.size, "max_overflow": 0, "pool_timeout": 10}
    engine = create_async_engine(
        address,
        **pool,
        hide_parameters=True,
        connect_args={**connect_args, "timeout": 5, "command_timeout": COMMAND_SECONDS, "server_settings": settings},
    )

    def refuse_dead(connection: Any, _record: Any, _proxy: Any) -> None:
        # asyncpg knows at once when the server closed the connection: cheaper than a ping before each use
        if tracker.is_suspect(connection.driver_connection):
            connection.driver_connection.terminate()
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    def connect(dialect: Any, _record: Any, _: Any, arguments: dict[str, Any]) -> Any:
        failure: Exception | None = None
        if tracker.cut:
            raise ConnectionAbortedError("this process is stopping")
        for one in addresses():
            other, tls = to_sqlalchemy(one)
            _, own = dialect.create_connect_args(other)
            try:
                return dialect.loaded_dbapi.connect(**{**arguments, **own, **tls})
            except REFUSED as error:
                failure = error
        assert failure is not None
        raise failure

    event.listen(engine.sync_engine, "checkout", refuse_dead)
    event.listen(engine.sync_engine, "handle_error", _discard_standby)
    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(engine.sync_engine, "connect", tracker.opened)
    event.listen(engine.sync_engine, "close", tracker.closing)
    return engine
