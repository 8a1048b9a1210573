"""The database as this process sees it: one pool for requests, one for the engine, each with its own role.

Requests run as ``agent_app``: row level security shows them the tenant that ``app.tenant`` names, and nothing without
one. The engine (journal, claims) runs as ``agent_engine``, which sees the run tables of all tenants; its
statements name the tenant in every predicate.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.base import Executable

from app.base.errors import AgentServiceError, StartError, Unavailable
from app.infra.db.connect_errors import reason
from app.infra.db.migrations import OLDEST_SERVER
from app.infra.db.pool import ConnectionTracker, MeasuredPool, PoolGate
from app.infra.db.schema_check import missing_parts
from app.infra.db.session import Reader, Snapshot, Writer
from app.infra.db.statement_tracing import trace_statements
from app.infra.db.url import to_sqlalchemy
from app.infra.telemetry.meters import ServerMeters
from app.infra.telemetry.tracing import NO_TRACER, Tracer

APP_ROLE = "agent_app"
ENGINE_ROLE = "agent_engine"

NO_SUCH_ROLE = "22023"
"""SQLSTATE of a connection that asks for a role which no migration has made yet."""

ENGINE_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""The engine's statements join arrays of a group with rows by primary key. Planning them anew for each group costs more
than running them, and a plan made while the tables were empty must still be right when they have grown: so one plan,
and always the index."""

LOCK_TIMEOUT = "3s"
"""How long a statement of a request waits for a lock, and holds a connection meanwhile."""

COMMAND_SECONDS = 60.0
"""How long any statement may take."""

FIRST_SECONDS = 5.0
"""How long the first statement of a transaction may take. It waits for no lock, so without an answer in time the
connection is dead."""

IDLE_IN_TRANSACTION = "15s"
IDLE_IN_SNAPSHOT = "10min"
"""After how long without a statement PostgreSQL ends a transaction: its client may be gone without closing the
connection, and others wait for the locks. A snapshot holds no row lock, and waits for the reader of an export."""

ROLLBACK_SECONDS = 5.0
"""How long a rollback may take before its connection is given up."""

_SET_TENANT = sa.text("select set_config('app.tenant', :tenant, true)")
_SET_TENANT_OF_SNAPSHOT = sa.text(
    "select set_config('app.tenant', :tenant, true),"
    f" set_config('idle_in_transaction_session_timeout', '{IDLE_IN_SNAPSHOT}', true)"
)
_SET_KEY = sa.text("select set_config('app.key_id', :key, true)")

_WRITE = """
insert into events (tenant_id, run_id, epoch, seq, body)
values ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 0, 0, $1)
"""
"""Into a logged table: the write-ahead log may have a disk of its own."""
WRITTEN_BYTES = 65_536
"""More than the free space of pages that a table has already."""

Addresses = Callable[[], Sequence[str]]
"""The addresses of one database, which differ in user and password: the first that lets us in counts."""

REFUSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)


def _open(addresses: Addresses, role: str, size: int | None, wire: ConnectionTracker) -> AsyncEngine:
    """A pool of ``size`` connections; None: every block gets a connection of its own, which ends with it."""
    address, connect_args = to_sqlalchemy(addresses()[0])
    settings = {"role": role, "application_name": f"agent-service {role}", "jit": "off"}
    settings |= {"idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION}
    settings |= ENGINE_PLANS if role == ENGINE_ROLE else {"lock_timeout": LOCK_TIMEOUT}
    pool: dict[str, Any] = {"poolclass": NullPool}
    if size is not None:
        pool = {"poolclass": MeasuredPool, "pool_size": size, "max_overflow": 0, "pool_timeout": 10}
    engine = create_async_engine(
        address,
        **pool,
        hide_parameters=True,
        connect_args={**connect_args, "timeout": 5, "command_timeout": COMMAND_SECONDS, "server_settings": settings},
    )

    def refuse_dead(connection: Any, _record: Any, _proxy: Any) -> None:
        # asyncpg knows at once when the server closed the connection: cheaper than a ping before every use
        if wire.is_suspect(connection.driver_connection):
            connection.driver_connection.terminate()
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    def connect(dialect: Any, _record: Any, _: Any, arguments: dict[str, Any]) -> Any:
        failure: Exception | None = None
        if wire.cut:
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
    event.listen(engine.sync_engine, "handle_error", _leave_stale)
    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(engine.sync_engine, "connect", wire.opened)
    event.listen(engine.sync_engine, "close", wire.closing)
    return engine


AWAY = (
    OSError,
    TimeoutError,
    sa.exc.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Errors after which the database cannot be used now, or not by this connection. What they have in common cannot be
listed completely: where a connection is known, that it is closed counts too."""

DISK_FULL = "The database's disk is full: nothing can be written until there is room. Reading works."


def _leave_stale(context: ExceptionContext) -> None:
    """A server that became read-only is a standby now: none of the connections to it is of use (an event)."""
    if isinstance(getattr(context.original_exception, "__cause__", None), asyncpg.ReadOnlySQLTransactionError):
        context.is_disconnect = True


def unavailable(error: BaseException) -> Unavailable | None:
    """What a caller is to learn where ``error`` shows that the database cannot be used now; None where it does not."""
    cause: BaseException | None = error
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps what the driver raises, also while a connection is being made
        cause = getattr(error.orig, "__cause__", None)
    if isinstance(cause, asyncpg.LockNotAvailableError):
        return Unavailable("Other requests are changing the same data: try again.", retry_after=1)
    if isinstance(cause, asyncpg.DiskFullError):
        return Unavailable(DISK_FULL, retry_after=30)
    if cause is error and isinstance(cause, AWAY):
        return Unavailable("The database cannot be reached.", retry_after=2)
    if isinstance(cause, AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable("The database connection broke.", retry_after=2)
    return None


def is_lock_timeout(error: DBAPIError) -> bool:
    """Whether ``error`` says that a lock did not come in time."""
    return isinstance(getattr(error.orig, "__cause__", None), asyncpg.LockNotAvailableError)


class DiskStatus:
    """Whether the database has room to write, as far as statements have shown."""

    full = False

    def notice(self, error: BaseException) -> None:
        """Remember that ``error`` spoke of a full disk, if it did."""
        cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
        self.full = self.full or isinstance(cause, asyncpg.DiskFullError)


@contextlib.contextmanager
def reachable(disk: DiskStatus) -> Iterator[None]:
    """Turn the ways in which a database can be away into ``Unavailable``."""
    try:
        yield
    except Exception as error:
        disk.notice(error)
        if (away := unavailable(error)) is not None:
            raise away from error
        raise


@contextlib.asynccontextmanager
async def _driver(engine: AsyncEngine, disk: DiskStatus) -> AsyncIterator[asyncpg.Connection]:
    with reachable(disk):
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            try:
                yield driver
            except AWAY as error:
                if not isinstance(error, asyncpg.InsufficientResourcesError):
                    driver.terminate()  # its state is unknown: the next caller gets a new one
                raise
            except Exception as error:
                if driver.is_closed() and not isinstance(error, AgentServiceError):
                    raise Unavailable("The database connection broke.", retry_after=2) from error
                raise
            finally:
                if driver.is_closed():
                    await connection.invalidate()


async def _roll_back(connection: asyncpg.Connection) -> None:
    """End the transaction; without an answer in time, also to a statement that was cancelled, the connection."""
    done = False
    try:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            async with asyncio.timeout(ROLLBACK_SECONDS):
                await connection.execute("rollback")
            done = True
    finally:
        if not done:
            connection.terminate()


def _always(url: str | Addresses) -> Addresses:
    return (lambda: [url]) if isinstance(url, str) else url


class Database:
    """The pools. ``requests`` bounds the connections of requests, ``engine`` those of the engine.

    ``direct`` is the address for LISTEN where a pooler stands in between.
    """

    def __init__(
        self, url: str | Addresses, *, direct: str | Addresses = "", requests: int = 10, engine: int = 10
    ) -> None:
        self._addresses = every = _always(url)
        self._wire = wire = ConnectionTracker()
        self._requests = _open(every, APP_ROLE, requests, wire)
        self._gate = PoolGate(cast("MeasuredPool", self._requests.sync_engine.pool))
        self._engine = _open(every, ENGINE_ROLE, engine, wire)
        self._probe = _open(every, APP_ROLE, 1, wire)
        self._direct = _open(_always(direct) if direct else every, ENGINE_ROLE, None, wire)
        self.disk = DiskStatus()

    def abort(self) -> None:
        """Cut every connection: what waits for the database fails at once, and what asks it from now on too."""
        self._wire.abort()

    def measure(self, meters: ServerMeters, tracer: Tracer = NO_TRACER) -> None:
        """Count on ``meters`` how the pools are used, and make spans of what requests ask."""
        if tracer.active:
            trace_statements(self._requests.sync_engine, tracer)
        for name, engine in (("requests", self._requests), ("engine", self._engine)):
            pool = engine.sync_engine.pool
            assert isinstance(pool, MeasuredPool)
            pool.measure(meters, name)

    def sample(self) -> None:
        """Tell of the pools as they are now."""
        for engine in (self._requests, self._engine):
            pool = engine.sync_engine.pool
            assert isinstance(pool, MeasuredPool)
            pool.sample()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._requests.dispose()
        await self._engine.dispose()
        await self._probe.dispose()
        await self._direct.dispose()

    @contextlib.asynccontextmanager
    async def _transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
        with reachable(self.disk):
            values = {"tenant": str(tenant_id)}
            async with (
                self._gate.slot(tenant_id),
                self._requests.begin() as connection,
                self._opened(connection, _SET_TENANT, values),
            ):
                yield connection

    @contextlib.asynccontextmanager
    async def _opened(
        self, connection: AsyncConnection, first: Executable, values: dict[str, str]
    ) -> AsyncIterator[None]:
        """A transaction that begins with the statement ``first``.

        A block that is given up, by a timeout or a cancellation, gives up the connection: its rollback could wait for
        the answer to a statement that never comes.
        """
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        try:
            with self._promptly(driver):
                await connection.execute(first, values)
            yield
        except (TimeoutError, asyncio.CancelledError) as error:
            driver.terminate()
            if isinstance(error, TimeoutError):
                self.suspect_connections()
            await connection.invalidate()
            raise

    @contextlib.contextmanager
    def _promptly(self, driver: asyncpg.Connection) -> Iterator[None]:
        """A block in which ``driver`` must answer within ``FIRST_SECONDS``."""
        late = asyncio.get_running_loop().call_later(FIRST_SECONDS, self._give_up, driver)
        try:
            yield
        finally:
            late.cancel()

    def _give_up(self, driver: asyncpg.Connection) -> None:
        """End a connection that gave no answer; all that are as old may lead nowhere too."""
        driver.terminate()
        self.suspect_connections()

    @contextlib.asynccontextmanager
    async def _slot(self, tenant_id: UUID) -> AsyncIterator[None]:
        with reachable(self.disk):
            async with self._gate.slot(tenant_id):
                yield

    @contextlib.asynccontextmanager
    async def reading(self, tenant_id: UUID, owned: str | None = None) -> AsyncIterator[Reader]:
        """A transaction that reads as ``tenant_id``, what is ``owned``. Raises ``Unavailable`` when the database is."""
        async with self._transaction(tenant_id) as connection:
            yield Reader(connection, owned)

    @contextlib.asynccontextmanager
    async def writing(self, tenant_id: UUID, owned: str | None = None) -> AsyncIterator[Writer]:
        """A transaction that writes as ``tenant_id``, what is ``owned``, and commits when the block ends well."""
        async with self._transaction(tenant_id) as connection:
            yield Writer(connection, owned)

    @contextlib.asynccontextmanager
    async def tuned(self, tenant_id: UUID, settings: str) -> AsyncIterator[asyncpg.Connection]:
        """A transaction of ``tenant_id`` on the driver's connection, for statements that are planned once and kept.

        ``settings`` are statements ``set local …;`` and go out with the first round trip, which names the tenant.
        """
        async with self._slot(tenant_id), _driver(self._requests, self.disk) as connection:
            try:
                with self._promptly(connection):
                    await connection.execute(f"begin; set local app.tenant = '{tenant_id}'; {settings}")
                yield connection
                await connection.execute("commit")
            except BaseException:
                await _roll_back(connection)
                raise

    @contextlib.asynccontextmanager
    async def snapshot(self, tenant_id: UUID) -> AsyncIterator[Snapshot]:
        """A transaction that reads one moment of the tenant's data, for as long as the block takes."""
        with reachable(self.disk):
            async with self._gate.slot(tenant_id), self._requests.connect() as plain:
                connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                values = {"tenant": str(tenant_id)}
                async with connection.begin(), self._opened(connection, _SET_TENANT_OF_SNAPSHOT, values):
                    yield Snapshot(connection)

    @contextlib.asynccontextmanager
    async def looking_up(self, key_ids: Sequence[str]) -> AsyncIterator[Reader]:
        """A transaction before the tenant is known: it sees the API keys ``key_ids``, with their tenants, alone."""
        with reachable(self.disk):
            values = {"key": ",".join(key_ids)}
            async with (
                self._gate.slot(_SET_KEY),
                self._requests.begin() as connection,
                self._opened(connection, _SET_KEY, values),
            ):
                yield Reader(connection)

    @contextlib.asynccontextmanager
    async def engine_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A driver connection of the engine's role, each statement its own transaction.

        For the hot path alone, where one prepared statement over arrays is the whole transaction.
        """
        async with _driver(self._engine, self.disk) as connection:
            try:
                yield connection
            except TimeoutError:
                self.suspect_connections()
                raise
            except Exception:
                raise
            except BaseException:  # a statement may be under way: the pool must not wait for its answer
                connection.terminate()
                raise

    def suspect_connections(self) -> None:
        """Replace every connection that is open now at its next checkout: its server may be gone without a word."""
        self._wire.suspect_connections()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncpg.Connection]:
        """A driver connection to keep, on which LISTEN works."""
        async with _driver(self._direct, self.disk) as connection:
            try:
                yield connection
            finally:
                connection.terminate()  # what it listens to must not outlive the block

    async def probe(self, statement: Executable) -> str:
        """One round trip on a connection that traffic cannot use up: the first value. Raises ``Unavailable``."""
        with reachable(self.disk):
            async with self._probe.connect() as connection:
                return str((await connection.execute(statement)).scalar())

    async def answers(self) -> bool:
        """Whether a connection that is made now, past every pool, can be used; a full disk counts as not.

        It raises whatever keeps it from knowing.
        """
        async with self.listening() as connection:
            return bool(await connection.fetchval("select 1")) and not self.disk.full

    async def look_for_room(self) -> None:
        """Find out, by a write that is rolled back, whether a disk that was full has room. Raises ``Unavailable``."""
        async with self.listening() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(_WRITE, os.urandom(WRITTEN_BYTES))
            finally:
                await transaction.rollback()
        self.disk.full = False

    async def revision(self) -> str:
        """The revision of the schema, which grows; empty for an empty database. Raises ``StartError`` without one."""
        try:
            async with self._probe.connect() as connection:
                server = connection.dialect.server_version_info or ()
                if server < (OLDEST_SERVER,):
                    raise StartError(f"the database is PostgreSQL {server[0]}; needed is {OLDEST_SERVER} or later")
                if await connection.scalar(sa.text("select to_regclass('alembic_version')")) is None:
                    return ""
                return str(await connection.scalar(sa.text("select version_num from alembic_version")) or "")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") == NO_SUCH_ROLE:
                return ""
            raise StartError(reason(error, self._addresses()[0])) from error
        except (OSError, TimeoutError, sa.exc.SQLAlchemyError, asyncpg.PostgresError) as error:
            raise StartError(reason(error, self._addresses()[0])) from error

    async def missing_parts(self, metadata: sa.MetaData) -> list[str]:
        """Name what the database lacks of the schema ``metadata`` (``app.infra.db.schema_check``). Raises
        ``Unavailable``.
        """
        with reachable(self.disk):
            async with self._probe.connect() as connection:
                return await missing_parts(connection, metadata)

    async def check(self) -> None:
        """Refuse to start with roles that row level security would not bind. Raises ``StartError``."""
        for engine, role in ((self._requests, APP_ROLE), (self._engine, ENGINE_ROLE)):
            try:
                async with engine.connect() as connection:
                    found = await connection.execute(
                        sa.text(
                            "select current_user, rolsuper or rolbypassrls as unbound"
                            " from pg_roles where rolname = current_user"
                        )
                    )
                    row = found.one()
            except (OSError, sa.exc.SQLAlchemyError, asyncpg.PostgresError) as error:
                raise StartError(
                    f"cannot connect to the database as the role {role}: run `agent-service migrate` as the owner, and "
                    f"grant {role} to the user of DATABASE_URL"
                ) from error
            if row.current_user != role or row.unbound:
                raise StartError(
                    f"the database role {role} is not what requests run as, or row level security does not bind it: "
                    f"make it NOSUPERUSER NOBYPASSRLS"
                )
