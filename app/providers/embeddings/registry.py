"""Build embedders by name: ``hashing``, ``minilm``, ``openai:MODEL`` or ``none``."""

import functools

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
"""Embedders that run in this process, with their native dimensions."""


def is_paid(name: str) -> bool:
    """Whether the embedder ``name`` is a vendor's, which charges for tokens."""
    return ":" in name


def dimensions_of(name: str, given: int) -> int:
    """Return the dimensions of the embedder ``name``; ``given`` 0: its native ones. Raises ``UsageError``."""
    vendor, _, model = name.partition(":")
    if name not in {*LOCAL, NONE} and (vendor != openai.VENDOR or not model):
        raise UsageError(f"unknown embedder {name!r}: use {', '.join(LOCAL)}, openai:MODEL or {NONE}")
    if name == NONE:
        return 0
    found = given or LOCAL.get(name, 0) or openai.NATIVE_DIMENSIONS.get(model, 0)
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
    name: str, dimensions: int, models: ModelRegistry, cache: CacheNamespace | None = None
) -> Embedder | None:
    """Build the embedder ``name``, None for ``none``. Vectors that are expensive to make are cached in ``cache``.

    Raises ``UsageError`` as ``dimensions_of`` and if it is not installed, ``Invalid`` if its API key is missing.
    """
    dimensions = dimensions_of(name, dimensions)
    if name == NONE:
        return None
    if name == hashing.NAME:
        return HashingEmbedder(dimensions)
    embedder: Embedder
    if name == minilm.NAME:
        embedder, endpoint = MiniLMEmbedder(), ""
    else:
        models.check_has_key(name)
        vendor, _, model = name.partition(":")
        connect = functools.partial(models.connect, vendor)
        embedder, endpoint = OpenAIEmbedder(model, dimensions, connect, models.charge), models.url(vendor)
    return embedder if cache is None else CachedEmbedder(embedder, cache, endpoint)
