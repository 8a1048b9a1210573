"""Items as JSON lines: the body of a put with optional timestamps and vectors.

A vector in a file is taken as one of the embedder that the agents file names for its namespace, and stored as 16-bit
floats like every vector.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.base.errors import AgentServiceError, Invalid
from app.base.ids import new_id
from app.base.json_scan import check
from app.features.store.index.fields import MAX_TEXTS, words_of
from app.features.store.index.indexing import Fields, indexed_texts
from app.features.store.index.versions import IndexVersion, VectorSpace
from app.features.store.structs import ItemPut
from app.features.store.validation import ValidatedItem, validate_item
from app.features.store.vectors import ItemVector, half_vector

MAX_LINE_BYTES = 4 << 20
"""Room for a value and sixteen vectors of the widest kind."""


class ItemLine(ItemPut, kw_only=True):
    """A line. ``vectors`` are those of the indexed texts, in order; ``vector`` is a single one.

    ``embedder``: the embedder that made them; left out: the one configured here.
    """

    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    embedder: str = ""
    vector: list[float] | None = None
    vectors: tuple[list[float], ...] = ()


class PreparedItem(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``store_items`` with its vectors; see ``app.features.store.index.indexing.PutEntry``."""

    path: str
    key: str
    item_id: UUID
    value: str
    index: str | None
    words: str | None
    version: int
    ttl_minutes: float | None
    expires_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    vectors: Sequence[ItemVector] = ()


_decode = msgspec.json.Decoder(ItemLine).decode


def parse_line(raw: bytes) -> ItemLine:
    """Parse a line. Raises ``Invalid`` with the reason."""
    try:
        check(raw, "The line")
        return _decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid(f"{str(error).replace(' - at `$', ' at `').replace('`.', '`')}.") from error
    except AgentServiceError as error:
        raise Invalid(str(error)) from error


def prepare_item(line: ItemLine, ttl: float, serving: IndexVersion, building: IndexVersion | None) -> PreparedItem:
    """Validate ``line`` and return its row. ``ttl`` is as in ``validate_item``. Raises ``Invalid``.

    The version of an item that lacks vectors is lower than the newest, so that the backfill makes them.
    """
    item = validate_item(line, ttl)
    for name, time in (
        ("created_at", line.created_at),
        ("updated_at", line.updated_at),
        ("expires_at", line.expires_at),
    ):
        if time is not None and time.tzinfo is None:
            raise Invalid(f"`{name}` has no time zone: end it with Z or an offset.")
    if line.expires_at is not None and item.ttl_minutes is None:
        raise Invalid("`expires_at` needs `ttl`: the minutes for which a read extends it.")
    newest = building or serving
    vectors, version = _vectors(line, item, serving), 0
    if vectors or not _vector_count(serving, item, line.index):
        version = serving.number if building is None or _vector_count(building, item, line.index) else building.number
    return PreparedItem(
        path=item.path,
        key=item.key,
        item_id=new_id(),
        value=item.text,
        index=item.index,
        words=words_of(indexed_texts(newest, item.path, item.value, line.index)),
        version=version,
        ttl_minutes=item.ttl_minutes,
        expires_at=line.expires_at,
        created_at=line.created_at,
        updated_at=line.updated_at,
        vectors=vectors,
    )


def _vector_count(version: IndexVersion, item: ValidatedItem, fields: Fields) -> int:
    """Return the number of vectors that the item has in ``version``."""
    _, space = version.index(item.path)
    return 0 if space is None else len(indexed_texts(version, item.path, item.value, fields)[:MAX_TEXTS])


def _vectors(line: ItemLine, item: ValidatedItem, version: IndexVersion) -> list[ItemVector]:
    given = line.vectors if line.vector is None else [line.vector, *line.vectors]
    if not given:
        return []
    index, space = version.index(item.path)
    if space is None:
        raise Invalid("`vectors`: items in this namespace have none (embedder none): leave them out.")
    if line.embedder and line.embedder != index.embedder:
        raise Invalid(
            f"`embedder`: the vectors were made by {line.embedder[:100]}, this namespace uses {index.embedder}: leave "
            "the vectors out to have them generated again."
        )
    expected = _vector_count(version, item, line.index)
    if len(given) != expected:
        raise Invalid(f"`vectors`: the line has {len(given)}, the item has {expected} indexed texts.")
    return [_pack(space, part, numbers) for part, numbers in enumerate(given)]


def _pack(space: VectorSpace, part: int, numbers: Sequence[Any]) -> ItemVector:
    if len(numbers) != space.dimensions:
        raise Invalid(f"`vectors/{part}` has {len(numbers)} numbers, those of this namespace have {space.dimensions}.")
    try:
        if not math.isfinite(math.fsum(numbers)):
            raise OverflowError
        vector = half_vector(numbers, space.width)
    except OverflowError as error:
        raise Invalid(f"`vectors/{part}` has a number beyond 65504.") from error
    if not any(vector.to_list()):
        raise Invalid(f"`vectors/{part}` has no direction: all its numbers are 0.")
    return ItemVector(space.width, space.number, part, vector)
