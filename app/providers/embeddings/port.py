"""The port for embedders: texts in, vectors out."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

Vector = Sequence[float]
"""Compared by cosine: only the direction counts."""


class Embedder(Protocol):
    """Embeds texts in ``dimensions`` dimensions. Embedders whose vectors differ have different names."""

    name: str
    dimensions: int

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Return a vector for each text. Raises ``ModelError``.

        ``owners``: the tenant of each text. Vectors are cached per owner, and without owners not at all.
        """
        ...
