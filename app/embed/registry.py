"""Names → embedders: ``hashing``, ``minilm``, ``openai:model``, or ``none``."""

from app.base.errors import UsageError
from app.cache.shelf import Shelf
from app.embed import hashing, minilm, openai
from app.embed.cached import CachedEmbedder
from app.embed.hashing import HashingEmbedder
from app.embed.minilm import MiniLMEmbedder
from app.embed.openai import OpenAIEmbedder
from app.embed.port import Embedder
from app.llm.registry import Registry

NONE = "none"
MOST_DIMENSIONS = 3072
LEAST_DIMENSIONS = 8
LOCAL = {hashing.NAME: hashing.DIMENSIONS, minilm.NAME: minilm.DIMENSIONS}
"""The embedders that work in this process, and how many dimensions they have of their own."""


def is_paid(name: str) -> bool:
    """Whether the embedder ``name`` is a vendor's, whose tokens are charged."""
    return ":" in name


def dimensions_of(name: str, given: int) -> int:
    """How many dimensions the embedder ``name`` has; ``given`` 0 asks for its own. Raises ``UsageError``."""
    vendor, _, model = name.partition(":")
    if name not in {*LOCAL, NONE} and (vendor != openai.VENDOR or not model):
        raise UsageError(f"unknown embedder {name!r}: use {', '.join(LOCAL)}, openai:MODEL or {NONE}")
    if name == NONE:
        return 0
    found = given or LOCAL.get(name, 0) or openai.NATIVE.get(model, 0)
    if not found:
        raise UsageError(f"the embedder {name!r} needs its number of dimensions: give dimensions = …")
    if name == minilm.NAME and found != minilm.DIMENSIONS:
        raise UsageError(
            f"the embedder {name!r} has {minilm.DIMENSIONS} dimensions and no others: leave dimensions out"
        )
    if not LEAST_DIMENSIONS <= found <= MOST_DIMENSIONS:
        raise UsageError(
            f"the embedder {name!r} has {found} dimensions; from {LEAST_DIMENSIONS} to {MOST_DIMENSIONS} can be stored"
        )
    return found


def embedder_of(name: str, dimensions: int, models: Registry, shelf: Shelf | None = None) -> Embedder | None:
    """The embedder ``name``; None for ``none``. Vectors that cost something to make are kept on ``shelf``.

    Raises ``UsageError`` as ``dimensions_of`` and for one that is not installed, ``Invalid`` for no key.
    """
    dimensions = dimensions_of(name, dimensions)
    if name == NONE:
        return None
    if name == hashing.NAME:
        return HashingEmbedder(dimensions)
    embedder: Embedder
    if name == minilm.NAME:
        embedder, place = MiniLMEmbedder(), ""
    else:
        models.check_openai(name)
        embedder, place = (
            OpenAIEmbedder(name.partition(":")[2], dimensions, models.openai, models.charge),
            models.openai_url,
        )
    return embedder if shelf is None else CachedEmbedder(embedder, shelf, place)
