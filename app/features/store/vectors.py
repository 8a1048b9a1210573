"""Vectors on their way to PostgreSQL: pgvector's ``halfvec`` in its binary format."""

from collections.abc import Sequence
from weakref import WeakSet

import asyncpg
import msgspec
from pgvector import HalfVector

from app.features.store.index.sql import HALFVEC_SCHEMA

_prepared: WeakSet[asyncpg.Connection] = WeakSet()


class ItemVector(msgspec.Struct, frozen=True):
    """The vector of an item's text number ``part``, in ``space`` of the table of ``width``."""

    width: int
    space: int
    part: int
    vector: HalfVector


class NeighbourQuery(msgspec.Struct, frozen=True):
    """A nearest-neighbour query: ``vector``, in ``space`` of the table of ``width``."""

    width: int
    space: int
    vector: HalfVector


def half_vector(numbers: Sequence[float], width: int) -> HalfVector:
    """Round a vector to 16-bit floats and pad it with zeros. Raises ``OverflowError`` for a number beyond 65504."""
    return HalfVector([*numbers, *[0.0] * (width - len(numbers))])


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Let ``connection`` send ``HalfVector`` parameters, also in arrays. Costs two round trips the first time.

    SQLAlchemy's type of the column, which sends text, cannot be used as a parameter on such a connection.
    """
    if connection not in _prepared:
        schema = await connection.fetchval(HALFVEC_SCHEMA)
        await connection.set_type_codec(
            "halfvec", schema=schema, encoder=HalfVector.to_binary, decoder=HalfVector.from_binary, format="binary"
        )
        _prepared.add(connection)
