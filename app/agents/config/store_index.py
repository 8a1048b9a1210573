"""The table ``[store]`` of the agents file: indexes and expiry of the long-term memory."""

from collections.abc import Sequence

import msgspec

from app.base.errors import UsageError
from app.providers.embeddings.hashing import NAME as HASHING
from app.providers.embeddings.registry import dimensions_of

WHOLE = "$"
MAX_INDEXES = 64
MAX_EMBEDDERS = 16
DOT = "."


class IndexSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How items at and below ``prefix`` are indexed: which ``fields`` of their values, by which embedder.

    Missing fields default to those of ``[store]``. ``dimensions`` 0: the embedder's own.
    """

    prefix: list[str] = []
    fields: list[str] | None = None
    embedder: str = ""
    dimensions: int = 0


class StoreSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The store. ``ttl``: default lifetime of an item in minutes; 0: items never expire.

    With ``refresh_on_read`` each read restarts an item's lifetime.
    """

    fields: list[str] = msgspec.field(default_factory=lambda: [WHOLE])
    embedder: str = HASHING
    dimensions: int = 0
    index: list[IndexSpec] = []
    ttl: float = 0
    refresh_on_read: bool = True


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """One index with its defaults filled in. ``path`` is the prefix with a dot after each label."""

    path: str
    fields: list[str]
    embedder: str
    dimensions: int


def indexes_of(spec: StoreSpec) -> list[Index]:
    """Return the indexes of ``spec``, longest prefix first, the catch-all last. Raises ``UsageError``."""
    given = [*spec.index, IndexSpec()]
    if len(given) > MAX_INDEXES:
        raise UsageError(f"at most {MAX_INDEXES} indexes")
    found: dict[str, Index] = {}
    for entry in given:
        path = _path(entry.prefix)
        if path in found and entry is not given[-1]:
            raise UsageError(f"two indexes have the prefix {entry.prefix}")
        name = entry.embedder or spec.embedder
        own = entry.dimensions if entry.embedder else entry.dimensions or spec.dimensions
        fields = spec.fields if entry.fields is None else entry.fields
        index = Index(path=path, fields=fields, embedder=name, dimensions=dimensions_of(name, own))
        found.setdefault(path, index)
    if len({(entry.embedder, entry.dimensions) for entry in found.values()}) > MAX_EMBEDDERS:
        raise UsageError(f"at most {MAX_EMBEDDERS} embedders")
    return sorted(found.values(), key=lambda index: (-index.path.count(DOT), index.path))


def check(spec: StoreSpec) -> None:
    """Validate the store's configuration. Raises ``UsageError``."""
    if spec.ttl < 0:
        raise UsageError("ttl is a number of minutes; 0 means that items never expire")
    indexes_of(spec)


def index_for(path: str, indexes: Sequence[Index]) -> Index:
    """Return the index for items at ``path``: the one with the longest prefix."""
    return next(index for index in indexes if path.startswith(index.path))


def _path(prefix: Sequence[str]) -> str:
    for label in prefix:
        if not label or DOT in label:
            raise UsageError(f"the prefix {list(prefix)} has a label that is empty or has a dot")
    return "".join(f"{label}{DOT}" for label in prefix)
