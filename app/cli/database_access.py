"""The database of the server, for the verbs that read or change it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.base.errors import StartError, UsageError

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.infra.db.engine import Database
    from app.infra.secrets.secret import Secret
    from app.infra.settings.environment import Settings
    from app.security.audit.service import AuditService


@contextlib.contextmanager
def database_settings() -> Iterator["Settings"]:
    """Return the settings with a database: ``DATABASE_URL``, else the embedded one of ``agent-service dev``.

    The embedded one is started for the block unless ``dev`` runs. Raises ``UsageError`` if there is none.
    """
    from app.infra.settings.environment import load

    settings = load()
    if settings.database.url is not None:
        yield settings
        return
    folder = settings.database.data_dir
    with contextlib.ExitStack() as stack:
        url = _embedded(Path(folder), stack)
        if not url:
            raise UsageError(
                f"DATABASE_URL is not set, and there is no database of `agent-service dev` in {folder}: set it to the "
                "database of the server, or AGENT_DATA_DIR"
            )
        yield load(overrides={"DATABASE_URL": url, "MIGRATE_DATABASE_URL": url})


def _embedded(folder: Path, stack: contextlib.ExitStack) -> str:
    from app.infra.db.embedded import EmbeddedDatabase

    try:
        database = EmbeddedDatabase(folder)
    except StartError:  # the package is not installed, as in production
        return ""
    if not database.exists():
        return ""
    if url := database.running():
        return url
    stack.callback(database.stop)
    return database.start()


@contextlib.asynccontextmanager
async def open_database(
    url: "Secret", *, requests: int = 1, engine: int = 1
) -> AsyncIterator[tuple["Database", "AuditService"]]:
    """Open the database at ``url`` with so many connections, and its audit log, which is written at the end.

    Raises ``StartError`` if migrations are pending.
    """
    from app.infra.db.engine import Database
    from app.infra.db.migrations import pending
    from app.security.audit.service import AuditService

    if await pending(url.reveal()):
        raise StartError("the database lacks migrations: run `agent-service migrate` first")
    database = Database(url.reveal(), requests=requests, engine=engine)
    try:
        await database.check()
        audit = AuditService(database)
        yield database, audit
        await audit.flush()
    finally:
        await database.aclose()


def with_access(use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call ``use`` with an ``AccessService`` and return its result. Raises ``StartError`` and ``UsageError``."""
    from app.infra.settings.environment import load
    from app.security.access.service import AccessService

    settings = load()
    url, pepper = settings.database.url, settings.auth.key_pepper
    if url is None:
        raise UsageError("DATABASE_URL is not set; set it to the database of the server")
    if pepper is None:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to that of the server")

    async def use_database() -> Any:
        async with open_database(url) as (database, audit):
            return await use(AccessService(database, pepper, records=audit))

    return asyncio.run(use_database())
