"""What requests with an ``Idempotency-Key`` were answered: copies of a person's data that no column leads to."""

import functools
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.rights.queries import ANSWERS, FORGET_ANSWERS, ROOTS, Column, still_there
from app.rights.structs import Whose


async def forget_answers(connection: asyncpg.Connection, whose: Whose) -> int:
    """Remove the keys whose answers show something of the person, or something that is gone; how many."""
    removed = 0
    place = ("", "")
    while rows := await connection.fetch(ANSWERS, whose.tenant_id, *place):
        place = (rows[-1]["route"], rows[-1]["key"])
        shown = {(row["route"], row["key"]): _things(row["answer"]) for row in rows}
        gone = await _gone(connection, whose.tenant_id, [thing for things in shown.values() for thing in things])
        told = [
            key
            for key, things in shown.items()
            if any(_is_theirs(thing, whose) or not gone.isdisjoint(_ids(thing)) for thing in things)
        ]
        if told:
            routes, keys = zip(*told, strict=True)
            done = await connection.execute(FORGET_ANSWERS, whose.tenant_id, list(routes), list(keys))
            removed += int(done.rpartition(" ")[2])
    return removed


def _things(answer: bytes) -> list[dict[str, Any]]:
    """What an answer shows: an object, or a list of some."""
    found = msgspec.json.decode(answer)
    return [thing for thing in (found if isinstance(found, list) else [found]) if isinstance(thing, dict)]


def _is_theirs(thing: dict[str, Any], whose: Whose) -> bool:
    metadata = thing.get("metadata")
    return isinstance(metadata, dict) and all(metadata.get(name) == value for name, value in whose.metadata.items())


def _ids(thing: dict[str, Any]) -> set[tuple[Column, UUID]]:
    return {(column, UUID(thing[column])) for column in ROOTS if isinstance(thing.get(column), str)}


async def _gone(
    connection: asyncpg.Connection, tenant_id: UUID, things: list[dict[str, Any]]
) -> set[tuple[Column, UUID]]:
    named: set[tuple[Column, UUID]] = functools.reduce(set.union, map(_ids, things), set())
    there: set[tuple[Column, UUID]] = set()
    for column in ROOTS:
        if ids := [one for of, one in named if of == column]:
            there |= {(column, one) for one in await still_there(connection, tenant_id, column, ids)}
    return named - there
