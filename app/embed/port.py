"""The port to embedders: texts in, vectors out."""

from collections.abc import Sequence
from typing import Protocol

Vector = Sequence[float]
"""Its direction is what counts: the store compares by cosine."""


class Embedder(Protocol):
    """Turns texts into vectors of ``dimensions`` numbers. ``name`` tells embedders apart whose vectors differ."""

    name: str
    dimensions: int

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text. Raises ``ModelError``."""
        ...
