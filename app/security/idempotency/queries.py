"""SQL of idempotency keys, and ``once``, which runs a request's work once per key and replays its first response.

A key is claimed in the transaction that does the work: both are committed, or neither.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from app.base.errors import Conflict, Invalid
from app.infra.db.engine import is_lock_timeout
from app.infra.db.session import Reader, Writer
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse
from app.security.idempotency.tables import idempotency_keys as keys

PRUNE = """
delete from idempotency_keys k using (
  select tenant_id, route, key from idempotency_keys where created_at < now() - make_interval(hours => $1)
  order by created_at limit 2000) o
where k.tenant_id = o.tenant_id and k.route = o.route and k.key = o.key
"""
"""Deletes keys older than $1 hours, of all tenants, in batches; run by the engine. Until then a key is known."""

UNDER_WAY = "A request with this Idempotency-Key is in progress: try again for its response."


def _of(tenant_id: UUID, key: IdempotencyKey) -> sa.ColumnElement[bool]:
    return sa.and_(keys.c.tenant_id == tenant_id, keys.c.route == key.route, keys.c.key == key.key)


async def take(session: Writer, tenant_id: UUID, key: IdempotencyKey) -> ReplayedResponse | None:
    """Claim ``key`` for the work of this transaction; return the stored response if it is claimed already.

    Waits briefly while a transaction of another process holds it (requests of one process wait without a connection,
    ``app.features.access.idempotency``). Raises ``Conflict`` if that takes too long, ``Invalid`` if the key came with
    another body before.
    """
    try:
        return await _take(session, tenant_id, key)
    except DBAPIError as error:
        if is_lock_timeout(error):
            raise Conflict(UNDER_WAY, retry_after=1) from error
        raise


async def _take(session: Writer, tenant_id: UUID, key: IdempotencyKey) -> ReplayedResponse | None:
    new = insert(keys).values(tenant_id=tenant_id, route=key.route, key=key.key, fingerprint=key.fingerprint)
    if await session.execute(new.on_conflict_do_nothing()):
        return None
    found = await find(session, tenant_id, key)
    if found is None:
        raise _another_body()
    return found


async def find(session: Reader, tenant_id: UUID, key: IdempotencyKey) -> ReplayedResponse | None:
    """Return the stored response of ``key``, None if it is new. Raises ``Invalid`` if it came with another body."""
    row = await session.first(
        sa.select(keys.c.fingerprint, keys.c.run_id, keys.c.thread_id, keys.c.answer).where(_of(tenant_id, key))
    )
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise _another_body()
    return ReplayedResponse(run_id=row.run_id, thread_id=row.thread_id, answer=row.answer)


def _another_body() -> Invalid:
    return Invalid(
        "This Idempotency-Key was used with another body: use a new key for a new request.",
        (("/", "not the body of the first request with this key"),),
    )


async def run_of(session: Reader, tenant_id: UUID, key: IdempotencyKey) -> tuple[UUID, UUID] | None:
    """Return the thread and the run that a request with ``key`` has created, whatever its body."""
    row = await session.first(sa.select(keys.c.thread_id, keys.c.run_id).where(_of(tenant_id, key)))
    return None if row is None or row.thread_id is None else (row.thread_id, row.run_id)


async def save_response(session: Writer, tenant_id: UUID, key: IdempotencyKey, made: ReplayedResponse) -> None:
    """Store the response of the transaction that claimed ``key``."""
    await session.execute(
        sa.update(keys)
        .where(_of(tenant_id, key))
        .values(run_id=made.run_id, thread_id=made.thread_id, answer=made.answer)
    )


Thing = TypeVar("Thing")


async def once(
    session: Writer, tenant_id: UUID, key: IdempotencyKey | None, make: Callable[[], Awaitable[Thing]]
) -> Thing | msgspec.Raw:
    """Return the result of ``make`` in this transaction, or the stored response without calling it if ``key`` came
    before.

    Raises what ``make`` raises, and ``Invalid`` if the key came with another body before.
    """
    if key is None:
        return await make()
    made = await take(session, tenant_id, key)
    if made is not None:
        return msgspec.Raw(made.answer)
    thing = await make()
    await save_response(session, tenant_id, key, ReplayedResponse(answer=msgspec.json.encode(thing)))
    return thing
