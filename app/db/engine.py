"""The database as this process sees it: one pool for requests, one for the engine, each with its own role.

Requests run as ``agent_app``: row level security shows them the tenant that ``app.tenant`` names, and nothing without
one. The engine (journal, claims) runs as ``agent_engine``, which sees the run tables of all tenants; its
statements name the tenant in every predicate.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.base import Executable

from app.base.errors import StartError, Unavailable
from app.db.pool import MeasuredPool, Turns
from app.db.schema_check import missing_parts
from app.db.session import Reader, Snapshot, Writer
from app.db.tracing import trace_statements
from app.db.url import to_sqlalchemy
from app.db.wire import Wire
from app.telemetry.meters import ServerMeters
from app.telemetry.tracing import NO_TRACER, Tracer

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

_SET_TENANT = sa.text("select set_config('app.tenant', :tenant, true)")
_SET_KEY = sa.text("select set_config('app.key_id', :key, true)")


Addresses = Callable[[], Sequence[str]]
"""The addresses of one database, which differ in user and password: the first that lets us in counts."""

REFUSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)


def _open(addresses: Addresses, role: str, size: int, wire: Wire) -> AsyncEngine:
    address, connect_args = to_sqlalchemy(addresses()[0])
    settings = {"role": role, "application_name": f"agent-service {role}", "jit": "off"}
    if role == ENGINE_ROLE:
        settings |= ENGINE_PLANS
    engine = create_async_engine(
        address,
        poolclass=MeasuredPool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={**connect_args, "timeout": 5, "command_timeout": 60, "server_settings": settings},
    )

    def refuse_dead(connection: Any, _record: Any, _proxy: Any) -> None:
        # asyncpg knows at once when the server closed the connection: cheaper than a ping before every use
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
    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(engine.sync_engine, "connect", wire.opened)
    return engine


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Turn the ways in which a database can be away into ``Unavailable``."""
    try:
        yield
    except AWAY as error:
        raise Unavailable("The database cannot be reached.", retry_after=2) from error
    except DBAPIError as error:
        # SQLAlchemy wraps what the driver raises, also while a connection is being made
        if not error.connection_invalidated and not isinstance(getattr(error.orig, "__cause__", None), AWAY):
            raise
        raise Unavailable("The database connection broke.", retry_after=2) from error


@contextlib.asynccontextmanager
async def _driver(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    with reachable():
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            try:
                yield driver
            finally:
                if driver.is_closed():
                    await connection.invalidate()


AWAY = (
    OSError,
    TimeoutError,
    sa.exc.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


def _always(url: str | Addresses) -> Addresses:
    return (lambda: [url]) if isinstance(url, str) else url


class Database:
    """The pools. ``requests`` bounds the connections of requests, ``engine`` those of the engine.

    ``direct`` is the address for LISTEN where a pooler stands in between.
    """

    def __init__(
        self, url: str | Addresses, *, direct: str | Addresses = "", requests: int = 10, engine: int = 10
    ) -> None:
        every = _always(url)
        self._wire = wire = Wire()
        self._requests = _open(every, APP_ROLE, requests, wire)
        self._turns = Turns(cast("MeasuredPool", self._requests.sync_engine.pool))
        self._engine = _open(every, ENGINE_ROLE, engine, wire)
        self._probe = _open(every, APP_ROLE, 1, wire)
        # as many as ask: one, but in tests
        self._direct = _open(_always(direct) if direct else every, ENGINE_ROLE, 0, wire)

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
        with reachable():
            async with self._turns, self._requests.begin() as connection:
                await connection.execute(_SET_TENANT, {"tenant": str(tenant_id)})
                yield connection

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
        async with _driver(self._requests) as connection:
            try:
                await connection.execute(f"begin; set local app.tenant = '{tenant_id}'; {settings}")
                yield connection
                await connection.execute("commit")
            except BaseException:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.execute("rollback")
                raise
            finally:
                if connection.is_in_transaction():  # not even the rollback came through: nobody may get it like this
                    connection.terminate()

    @contextlib.asynccontextmanager
    async def snapshot(self, tenant_id: UUID) -> AsyncIterator[Snapshot]:
        """A transaction that reads one moment of the tenant's data, for as long as the block takes."""
        with reachable():
            async with self._turns, self._requests.connect() as plain:
                connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                async with connection.begin():
                    await connection.execute(_SET_TENANT, {"tenant": str(tenant_id)})
                    yield Snapshot(connection)

    @contextlib.asynccontextmanager
    async def looking_up(self, key_id: str) -> AsyncIterator[Reader]:
        """A transaction before the tenant is known: it sees the API key ``key_id`` and nothing else."""
        with reachable():
            async with self._turns, self._requests.begin() as connection:
                await connection.execute(_SET_KEY, {"key": key_id})
                yield Reader(connection)

    @contextlib.asynccontextmanager
    async def engine_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A driver connection of the engine's role, each statement its own transaction.

        For the hot path alone, where one prepared statement over arrays is the whole transaction.
        """
        async with _driver(self._engine) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncpg.Connection]:
        """A driver connection to keep, on which LISTEN works."""
        async with _driver(self._direct) as connection:
            try:
                yield connection
            finally:
                connection.terminate()  # what it listens to must not outlive the block

    async def probe(self, statement: Executable) -> str:
        """One round trip on a connection that traffic cannot use up: the first value. Raises ``Unavailable``."""
        with reachable():
            async with self._probe.connect() as connection:
                return str((await connection.execute(statement)).scalar())

    async def revision(self) -> str:
        """The revision of the schema, which grows; empty for an empty database. Raises ``StartError`` without one."""
        try:
            async with self._probe.connect() as connection:
                if await connection.scalar(sa.text("select to_regclass('alembic_version')")) is None:
                    return ""
                return str(await connection.scalar(sa.text("select version_num from alembic_version")) or "")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") == NO_SUCH_ROLE:
                return ""
            raise StartError(f"the database refuses ({type(error.orig).__name__}): check DATABASE_URL") from error
        except (OSError, TimeoutError, sa.exc.SQLAlchemyError, asyncpg.PostgresError) as error:
            raise StartError(f"the database cannot be reached ({type(error).__name__}): check DATABASE_URL") from error

    async def missing_parts(self, metadata: sa.MetaData) -> list[str]:
        """Name what the database lacks of the schema ``metadata`` (``app.db.schema_check``). Raises ``Unavailable``."""
        with reachable():
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
