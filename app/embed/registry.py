"""Names → embedders: ``hashing``, ``openai:model``, or ``none``."""

from app.base.errors import UsageError
from app.cache.shelf import Shelf
from app.embed import hashing, openai
from app.embed.cached import CachedEmbedder
from app.embed.hashing import HashingEmbedder
from app.embed.openai import OpenAIEmbedder
from app.embed.port import Embedder
from app.llm.registry import Registry

NONE = "none"
MOST_DIMENSIONS = 3072
LEAST_DIMENSIONS = 8


def dimensions_of(name: str, given: int) -> int:
    """How many dimensions the embedder ``name`` has; ``given`` 0 asks for its own. Raises ``UsageError``."""
    vendor, _, model = name.partition(":")
    if name not in {hashing.NAME, NONE} and (vendor != openai.VENDOR or not model):
        raise UsageError(f"unknown embedder {name!r}: use {hashing.NAME}, openai:MODEL or {NONE}")
    if name == NONE:
        return 0
    found = given or (hashing.DIMENSIONS if name == hashing.NAME else openai.NATIVE.get(model, 0))
    if not found:
        raise UsageError(f"the embedder {name!r} needs its number of dimensions: give dimensions = …")
    if not LEAST_DIMENSIONS <= found <= MOST_DIMENSIONS:
        raise UsageError(
            f"the embedder {name!r} has {found} dimensions; from {LEAST_DIMENSIONS} to {MOST_DIMENSIONS} can be stored"
        )
    return found


def embedder_of(name: str, dimensions: int, models: Registry, shelf: Shelf | None = None) -> Embedder | None:
    """The embedder ``name``; None for ``none``. Vectors that cost something to make are kept on ``shelf``.

    Raises ``UsageError`` as ``dimensions_of``, ``Invalid`` for no key.
    """
    dimensions = dimensions_of(name, dimensions)
    if name == NONE:
        return None
    if name == hashing.NAME:
        return HashingEmbedder(dimensions)
    models.check_openai(name)
    embedder = OpenAIEmbedder(name.partition(":")[2], dimensions, models.openai)
    return embedder if shelf is None else CachedEmbedder(embedder, shelf, models.openai_url)
