"""Do again what a lost connection has interrupted, where the caller cannot: for the code of hosted graphs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError

from app.base.errors import Unavailable
from app.infra.db import sql
from app.infra.db.engine import Database
from app.infra.db.session import Writer

REPEAT_SECONDS = 20.0
"""For how long an operation is repeated while the database is unavailable."""
PAUSE = 0.1
IN_PROGRESS = "in progress"

Value = TypeVar("Value")


async def repeated(
    work: Callable[[], Awaitable[Value]], check: Callable[[], None], seconds: float = REPEAT_SECONDS
) -> Value:
    """Return the result of ``work``, called again while it raises ``Unavailable``, which it does after ``seconds``.

    ``check`` is called before each attempt, and raises if the caller may not make it. Twice must be as good as once: a
    transaction may have been committed although its response was lost.
    """
    deadline = time.monotonic() + seconds
    while True:
        check()
        try:
            return await work()
        except Unavailable as error:
            if time.monotonic() > deadline or (error.retry_after or 0) > seconds:
                raise
            await asyncio.sleep(PAUSE)


async def write_once(
    database: Database,
    tenant_id: UUID,
    work: Callable[[Writer], Awaitable[Value]],
    check: Callable[[], None],
    owned: str | None = None,
) -> Value:
    """Return the result of ``work`` in a transaction that is committed once, whatever becomes of its connections.

    After a lost connection the database tells whether it has committed the transaction; if not, ``work`` is called
    again. ``check`` is called before each attempt and before its commit. Raises ``Unavailable`` as ``repeated`` does;
    then the transaction may have been committed.
    """
    began: list[str] = []
    results: list[Value] = []

    async def attempt() -> Value:
        if results and await _is_committed(database, tenant_id, began[-1]):
            return results[-1]
        results.clear()
        async with database.writing(tenant_id, owned) as session:
            began.append(await session.scalar(sql.TRANSACTION_ID))
            result = await work(session)
            check()
            results.append(result)
        return results[-1]

    return await repeated(attempt, check)


async def _is_committed(database: Database, tenant_id: UUID, transaction: str) -> bool:
    """Whether ``transaction`` is committed. Raises ``Unavailable`` while that is not decided."""
    try:
        async with database.reading(tenant_id) as session:
            status = await session.scalar(sql.TRANSACTION_STATUS, {"transaction": transaction})
    except DBAPIError as error:
        if isinstance(getattr(error.orig, "__cause__", None), asyncpg.InvalidParameterValueError):
            return False  # another server, which never had it, has taken over
        raise
    if status == IN_PROGRESS:
        raise Unavailable("The database has not ended a transaction whose connection broke. Try again.")
    return bool(status == "committed")
