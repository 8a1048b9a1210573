"""The port to embedders: texts in, vectors out."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

Vector = Sequence[float]
"""Its direction is what counts: the store compares by cosine."""


class Embedder(Protocol):
    """Turns texts into vectors of ``dimensions`` numbers. ``name`` tells embedders apart whose vectors differ."""

    name: str
    dimensions: int

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """One vector for each text. Raises ``ModelError``.

        ``owners`` are the tenants whose texts they are, one for each: what is kept of a text is kept for its owner
        alone, and without owners nothing is.
        """
        ...
