"""Names → embedders: ``hashing``, ``minilm``, ``openai:model``, or ``none``."""

from app.base.errors import UsageError
from app.infra.cache.namespaces import CacheNamespace
from app.providers.embeddings import hashing, minilm, openai
from app.providers.embeddings.cached import CachedEmbedder
from app.providers.embeddings.hashing import HashingEmbedder
from app.providers.embeddings.minilm import MiniLMEmbedder
from app.providers.embeddings.openai import OpenAIEmbedder
from app.providers.embeddings.port import Embedder
from app.providers.llm.registry import ModelRegistry

NONE = "none"
MAX_DIMENSIONS = 3072
MIN_DIMENSIONS = 8
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
    if not MIN_DIMENSIONS <= found <= MAX_DIMENSIONS:
        raise UsageError(
            f"the embedder {name!r} has {found} dimensions; from {MIN_DIMENSIONS} to {MAX_DIMENSIONS} can be stored"
        )
    return found


def build_embedder(
    name: str, dimensions: int, models: ModelRegistry, shelf: CacheNamespace | None = None
) -> Embedder | None:
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
