"""Access to keys and tenants in the configured database, for the verbs that change them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from app.base.errors import StartError, UsageError


def with_access(use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call ``use`` with an ``AccessService`` and return its result. Raises ``StartError`` and ``UsageError``."""
    from app.infra.db.engine import Database
    from app.infra.db.migrations import pending
    from app.infra.settings.environment import load
    from app.security.access.service import AccessService
    from app.security.audit.service import AuditService

    settings = load()
    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to the database of the server")
    if settings.auth.key_pepper is None:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to that of the server")
    url, pepper = settings.database.url.reveal(), settings.auth.key_pepper

    async def work() -> Any:
        if await pending(url):
            raise StartError("the database lacks migrations: run `agent-service migrate` first")
        database = Database(url, requests=1, engine=1)
        try:
            await database.check()
            audit = AuditService(database)
            result = await use(AccessService(database, pepper, records=audit))
            await audit.flush()
            return result
        finally:
            await database.aclose()

    return asyncio.run(work())
