"""Make a thing once for a key, and give its first answer ever after."""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import msgspec

from app.db.session import Writer
from app.idempotency import queries
from app.idempotency.structs import Key, Made

Thing = TypeVar("Thing")


async def once(
    session: Writer, tenant_id: UUID, key: Key | None, make: Callable[[], Awaitable[Thing]]
) -> Thing | msgspec.Raw:
    """What ``make`` makes in this transaction; without calling it the first answer, when ``key`` came before.

    Raises what ``make`` raises, and ``Invalid`` for a key that came with another body before.
    """
    if key is None:
        return await make()
    made = await queries.take(session, tenant_id, key)
    if made is not None:
        return msgspec.Raw(made.answer)
    thing = await make()
    await queries.keep(session, tenant_id, key, Made(answer=msgspec.json.encode(thing)))
    return thing
