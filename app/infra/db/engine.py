"""Database connections of this process: a pool for requests and one for the engine, each with its own role.

Requests run as ``agent_app``: row level security shows them only the tenant in ``app.tenant``, and nothing without one.
The engine (journal, claims) runs as ``agent_engine``, which sees the run tables of all tenants; its statements name the
tenant in every predicate.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import cast
from uuid import UUID

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.base import Executable

from app.base.errors import AgentServiceError, StartError, Unavailable
from app.infra.db import sql
from app.infra.db.connect_errors import reason
from app.infra.db.migrations import OLDEST_SERVER
from app.infra.db.pool import POOLS, Addresses, ConnectionTracker, PoolGate, open_pool
from app.infra.db.schema_check import missing_parts
from app.infra.db.session import Reader, Snapshot, Writer
from app.infra.db.sqlalchemy_internals import MeasuredPool
from app.infra.db.statement_tracing import trace_statements
from app.infra.telemetry.meters import ServerMeters
from app.infra.telemetry.tracing import NO_TRACER, Tracer

NO_SUCH_ROLE = "22023"
"""SQLSTATE of a connection with a role that no migration has created yet."""
ROLE_REFUSED = (NO_SUCH_ROLE, "42501")
"""SQLSTATEs of a connection with a role that does not exist, or that the user may not assume."""

FIRST_SECONDS = 5.0
"""Timeout of a transaction's first statement. It waits for no lock, so without a response the connection is dead."""

ROLLBACK_SECONDS = 5.0
"""Timeout of a rollback; then its connection is terminated."""

WRITTEN_BYTES = 65_536
"""More than the free space in a table's existing pages."""

CONNECTION_ERRORS = (
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
"""Errors that mean the database, or this connection to it, cannot be used now. The list cannot be complete: where a
connection is known, that it is closed counts too.
"""

ROLLED_BACK_ERRORS = (asyncpg.QueryCanceledError, asyncpg.TransactionRollbackError)
"""The server cancelled the statement (an operator, a deadlock, a conflict) and rolled its transaction back: nothing was
done, the connection works, and the transaction may be repeated.
"""

CANCELLED_BY_SERVER = "The database cancelled a statement and rolled its transaction back. Try again."
CONNECTION_BROKE = "The database connection broke. Try again."
DISK_FULL = "The database's disk is full: free space on it. Until then writes fail; reading works."


def unavailable(error: BaseException) -> Unavailable | None:
    """Return the error for the caller if ``error`` means that the database cannot be used now, else None."""
    cause: BaseException | None = error
    if isinstance(error, DBAPIError):
        # SQLAlchemy wraps the driver's errors, also while connecting
        cause = getattr(error.orig, "__cause__", None)
    if isinstance(cause, asyncpg.LockNotAvailableError):
        return Unavailable("Other requests are changing the same data. Try again.", retry_after=1)
    if isinstance(cause, ROLLED_BACK_ERRORS):
        return Unavailable(CANCELLED_BY_SERVER, retry_after=1)
    if isinstance(cause, asyncpg.DiskFullError):
        return Unavailable(DISK_FULL, retry_after=30)
    if cause is error and isinstance(cause, CONNECTION_ERRORS):
        return Unavailable("The database is unreachable. Try again.", retry_after=2)
    if isinstance(cause, CONNECTION_ERRORS) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable(CONNECTION_BROKE, retry_after=2)
    return None


def is_lock_timeout(error: DBAPIError) -> bool:
    """Whether ``error`` is a lock timeout."""
    return isinstance(getattr(error.orig, "__cause__", None), asyncpg.LockNotAvailableError)


class DiskStatus:
    """Whether the database's disk is full, as far as statements have shown."""

    full = False

    def record_error(self, error: BaseException) -> None:
        """Remember if ``error`` reports a full disk."""
        cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
        self.full = self.full or isinstance(cause, asyncpg.DiskFullError)


@contextlib.contextmanager
def reachable(disk: DiskStatus) -> Iterator[None]:
    """Raise errors that mean an unavailable database as ``Unavailable``."""
    try:
        yield
    except Exception as error:
        disk.record_error(error)
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
            except CONNECTION_ERRORS as error:
                if not isinstance(error, asyncpg.InsufficientResourcesError):
                    driver.terminate()  # its state is unknown: the next caller gets a new one
                raise
            except Exception as error:
                if driver.is_closed() and not isinstance(error, AgentServiceError):
                    raise Unavailable(CONNECTION_BROKE, retry_after=2) from error
                raise
            finally:
                if driver.is_closed():
                    await connection.invalidate()


async def _roll_back(connection: asyncpg.Connection) -> None:
    """Roll the transaction back; terminate the connection if that gets no response in time."""
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
    """The connection pools (``POOLS``); ``requests`` and ``engine`` are the sizes of two of them.

    ``direct`` is the address for LISTEN if ``url`` is a pooler's.
    """

    def __init__(
        self, url: str | Addresses, *, direct: str | Addresses = "", requests: int = 10, engine: int = 10
    ) -> None:
        self._addresses = addresses = _always(url)
        direct_addresses = _always(direct) if direct else addresses
        self._tracker = ConnectionTracker()
        sizes = {"requests": requests, "engine": engine}
        self._pools = {
            name: open_pool(
                msgspec.structs.replace(spec, size=sizes.get(name, spec.size)),
                direct_addresses if spec.direct else addresses,
                self._tracker,
            )
            for name, spec in POOLS.items()
        }
        self._requests = self._pools["requests"]
        self._gate = PoolGate(cast("MeasuredPool", self._requests.sync_engine.pool))
        self._tenants_gate = PoolGate(cast("MeasuredPool", self._pools["tenants"].sync_engine.pool))
        self.disk = DiskStatus()

    def abort(self) -> None:
        """Terminate every connection; pending and later calls fail at once."""
        self._tracker.abort()

    def measure(self, meters: ServerMeters, tracer: Tracer = NO_TRACER) -> None:
        """Record pool metrics on ``meters`` and spans of requests' statements."""
        if tracer.active:
            trace_statements(self._requests.sync_engine, tracer)
        for name, pool in self._measured():
            pool.measure(meters, name)

    def _measured(self) -> Iterator[tuple[str, MeasuredPool]]:
        for name, spec in POOLS.items():
            if spec.measured:
                yield name, cast("MeasuredPool", self._pools[name].sync_engine.pool)

    def sample(self) -> None:
        """Set the gauges of the pools."""
        for _, pool in self._measured():
            pool.sample()

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.dispose()

    @contextlib.asynccontextmanager
    async def _transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
        with reachable(self.disk):
            values = {"tenant": str(tenant_id)}
            async with (
                self._gate.slot(tenant_id),
                self._requests.begin() as connection,
                self._opened(connection, sql.SET_TENANT, values),
            ):
                yield connection

    @contextlib.asynccontextmanager
    async def _opened(
        self, connection: AsyncConnection, first: Executable, values: dict[str, str]
    ) -> AsyncIterator[None]:
        """Begin a transaction with the statement ``first``.

        A block that is cancelled or times out gives up its connection: a rollback could wait for a response that never
        comes.
        """
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        try:
            with self._first_statement_timeout(driver):
                await connection.execute(first, values)
            yield
        except (TimeoutError, asyncio.CancelledError) as error:
            driver.terminate()
            if isinstance(error, TimeoutError):
                self.suspect_connections()
            await connection.invalidate()
            raise

    @contextlib.contextmanager
    def _first_statement_timeout(self, driver: asyncpg.Connection) -> Iterator[None]:
        """Terminate ``driver`` unless the block ends within ``FIRST_SECONDS``."""
        late = asyncio.get_running_loop().call_later(FIRST_SECONDS, self._give_up, driver)
        try:
            yield
        finally:
            late.cancel()

    def _give_up(self, driver: asyncpg.Connection) -> None:
        """Terminate a connection that does not respond, and suspect all others that are open."""
        driver.terminate()
        self.suspect_connections()

    @contextlib.asynccontextmanager
    async def _slot(self, tenant_id: UUID) -> AsyncIterator[None]:
        with reachable(self.disk):
            async with self._gate.slot(tenant_id):
                yield

    @contextlib.asynccontextmanager
    async def reading(self, tenant_id: UUID, owned: str | None = None) -> AsyncIterator[Reader]:
        """Open a transaction that reads as ``tenant_id``, filtered by ``owned``. Raises ``Unavailable``."""
        async with self._transaction(tenant_id) as connection:
            yield Reader(connection, owned)

    @contextlib.asynccontextmanager
    async def writing(self, tenant_id: UUID, owned: str | None = None) -> AsyncIterator[Writer]:
        """Open a transaction that writes as ``tenant_id``, filtered by ``owned``; an error rolls it back."""
        async with self._transaction(tenant_id) as connection:
            yield Writer(connection, owned)

    @contextlib.asynccontextmanager
    async def tuned(self, tenant_id: UUID, settings: str) -> AsyncIterator[asyncpg.Connection]:
        """Open a transaction of ``tenant_id`` on the driver's connection, for statements with planner settings.

        ``settings`` are statements ``set local …;``, sent with the first round trip, which sets the tenant.
        """
        async with self._slot(tenant_id), _driver(self._requests, self.disk) as connection:
            try:
                with self._first_statement_timeout(connection):
                    await connection.execute(sql.begin_as(tenant_id, settings))
                yield connection
                await connection.execute("commit")
            except BaseException:
                await _roll_back(connection)
                raise

    @contextlib.asynccontextmanager
    async def snapshot(self, tenant_id: UUID) -> AsyncIterator[Snapshot]:
        """Open a transaction that reads a consistent snapshot of the tenant's data."""
        with reachable(self.disk):
            async with self._gate.slot(tenant_id), self._requests.connect() as plain:
                connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                values = {"tenant": str(tenant_id)}
                async with connection.begin(), self._opened(connection, sql.SET_SNAPSHOT_TENANT, values):
                    yield Snapshot(connection)

    @contextlib.asynccontextmanager
    async def looking_up(self, key_ids: Sequence[str]) -> AsyncIterator[Reader]:
        """Open a transaction before the tenant is known; it sees only the API keys ``key_ids`` and their tenants."""
        with reachable(self.disk):
            values = {"key": ",".join(key_ids)}
            async with (
                self._gate.slot(sql.SET_KEY),
                self._requests.begin() as connection,
                self._opened(connection, sql.SET_KEY, values),
            ):
                yield Reader(connection)

    @contextlib.asynccontextmanager
    async def engine_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Get a driver connection of the engine's role in autocommit mode.

        For the hot path, where one prepared statement over arrays is the whole transaction.
        """
        async with self._on_driver("engine") as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def tenant_connection(self, tenant_id: UUID, *, outer: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """Get a driver connection of the engine's role for work that may wait for locks of ``tenant_id``.

        Tenants share these connections fairly, and the engine's own work (leases, claims, commits) needs none of them.
        ``outer``: within the block the tenant may need another one, so this one does not count to its share.
        """
        party = (tenant_id, "outer") if outer else tenant_id
        with reachable(self.disk):
            async with self._tenants_gate.slot(party), self._on_driver("tenants") as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _on_driver(self, pool: str) -> AsyncIterator[asyncpg.Connection]:
        async with _driver(self._pools[pool], self.disk) as connection:
            try:
                yield connection
            except TimeoutError:
                self.suspect_connections()
                raise
            except Exception:
                raise
            except BaseException:  # a statement may be in progress: the pool must not wait for its response
                connection.terminate()
                raise

    def suspect_connections(self) -> None:
        """Replace every open connection at its next checkout: its server may have died silently."""
        self._tracker.suspect_connections()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a dedicated driver connection on which LISTEN works."""
        async with _driver(self._pools["direct"], self.disk) as connection:
            try:
                yield connection
            finally:
                connection.terminate()  # its LISTEN must not outlive the block

    async def probe(self, statement: Executable) -> str:
        """Run ``statement`` on a connection reserved for probes and return its first value. Raises ``Unavailable``."""
        with reachable(self.disk):
            async with self._pools["probe"].connect() as connection:
                return str((await connection.execute(statement)).scalar())

    async def is_usable(self) -> bool:
        """Whether a new connection, past every pool, can be used; a full disk counts as unusable.

        Raises whatever prevents the check.
        """
        async with self.listening() as connection:
            return bool(await connection.fetchval(sql.PING)) and not self.disk.full

    async def probe_disk(self) -> None:
        """Check by a write that is rolled back whether a full disk has free space again. Raises ``Unavailable``."""
        async with self.listening() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(sql.WRITE_PROBE, os.urandom(WRITTEN_BYTES))
            finally:
                await transaction.rollback()
        self.disk.full = False

    async def revision(self) -> str:
        """Return the schema's revision, empty for an empty database. Raises ``StartError`` if it is unreachable."""
        try:
            async with self._pools["probe"].connect() as connection:
                server = connection.dialect.server_version_info or ()
                if server < (OLDEST_SERVER,):
                    raise StartError(
                        f"the database is PostgreSQL {server[0]}; version {OLDEST_SERVER} or later is required"
                    )
                if await connection.scalar(sql.VERSION_TABLE) is None:
                    return ""
                return str(await connection.scalar(sql.VERSION) or "")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") == NO_SUCH_ROLE:
                return ""
            raise StartError(reason(error, self._addresses()[0])) from error
        except (OSError, TimeoutError, sa.exc.SQLAlchemyError, asyncpg.PostgresError) as error:
            raise StartError(reason(error, self._addresses()[0])) from error

    async def missing_parts(self, metadata: sa.MetaData) -> list[str]:
        """Return what the database lacks of the schema ``metadata``. Raises ``Unavailable``."""
        with reachable(self.disk):
            async with self._pools["probe"].connect() as connection:
                return await missing_parts(connection, metadata)

    async def check(self) -> None:
        """Refuse to start with roles that row level security does not restrict. Raises ``StartError``."""
        for name in ("requests", "engine"):
            role = POOLS[name].role
            try:
                async with self._pools[name].connect() as connection:
                    found = await connection.execute(sql.CURRENT_ROLE)
                    row = found.one()
            except (OSError, sa.exc.SQLAlchemyError, asyncpg.PostgresError) as error:
                if getattr(getattr(error, "orig", None), "sqlstate", "") not in ROLE_REFUSED:
                    raise StartError(reason(error, self._addresses()[0])) from error
                raise StartError(
                    f"cannot connect to the database as the role {role}: run `agent-service migrate` as the owner, and "
                    f"grant {role} to the user of DATABASE_URL"
                ) from error
            if row.current_user != role or row.unbound:
                raise StartError(
                    f"the database role {role} cannot be assumed, or row level security does not apply to it: "
                    f"make it NOSUPERUSER NOBYPASSRLS"
                )
