"""The database of the server, for the verbs that read or change it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.base.errors import StartError, UsageError

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.infra.settings.environment import Settings


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


def with_access(use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call ``use`` with an ``AccessService`` and return its result. Raises ``StartError`` and ``UsageError``."""
    from app.infra.settings.environment import load
    from app.security.access.service import AccessService

    settings = load()
    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to the database of the server")
    pepper = settings.auth.key_pepper
    if pepper is None:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to that of the server")
    return asyncio.run(with_database(settings, lambda db, audit: use(AccessService(db, pepper, records=audit))))


async def with_database(settings: "Settings", use: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Call ``use`` with the ``Database`` of ``settings`` and an ``AuditService``; return its result.

    Raises ``StartError`` if migrations are pending.
    """
    from app.infra.db.engine import Database
    from app.infra.db.migrations import pending
    from app.security.audit.service import AuditService

    assert settings.database.url is not None
    url = settings.database.url.reveal()
    if await pending(url):
        raise StartError("the database lacks migrations: run `agent-service migrate` first")
    database = Database(url, requests=1, engine=1)
    try:
        await database.check()
        audit = AuditService(database)
        result = await use(database, audit)
        await audit.flush()
        return result
    finally:
        await database.aclose()
