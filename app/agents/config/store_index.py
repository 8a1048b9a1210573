"""The table ``[store]`` of the agents file: what of the long-term memory is indexed, and how long it stays."""

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

    What is left out is as in ``[store]``. ``dimensions`` 0: the embedder's own.
    """

    prefix: list[str] = []
    fields: list[str] | None = None
    embedder: str = ""
    dimensions: int = 0


class StoreSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The store. ``ttl`` are minutes that an item stays for which none are given; 0: for ever.

    With ``refresh_on_read`` an item's time begins anew whenever it is read.
    """

    fields: list[str] = msgspec.field(default_factory=lambda: [WHOLE])
    embedder: str = HASHING
    dimensions: int = 0
    index: list[IndexSpec] = []
    ttl: float = 0
    refresh_on_read: bool = True


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """One entry with nothing left out. ``path`` is the prefix with a dot after each label."""

    path: str
    fields: list[str]
    embedder: str
    dimensions: int


def indexes_of(spec: StoreSpec) -> list[Index]:
    """The entries of ``spec``, the longest prefixes first, one for everything last. Raises ``UsageError``."""
    given = [*spec.index, IndexSpec()]
    if len(given) > MAX_INDEXES:
        raise UsageError(f"at most {MAX_INDEXES} indexes")
    found: dict[str, Index] = {}
    for one in given:
        path = _path(one.prefix)
        if path in found and one is not given[-1]:
            raise UsageError(f"two indexes have the prefix {one.prefix}")
        name = one.embedder or spec.embedder
        own = one.dimensions if one.embedder else one.dimensions or spec.dimensions
        fields = spec.fields if one.fields is None else one.fields
        index = Index(path=path, fields=fields, embedder=name, dimensions=dimensions_of(name, own))
        found.setdefault(path, index)
    if len({(one.embedder, one.dimensions) for one in found.values()}) > MAX_EMBEDDERS:
        raise UsageError(f"at most {MAX_EMBEDDERS} embedders")
    return sorted(found.values(), key=lambda index: (-index.path.count(DOT), index.path))


def check(spec: StoreSpec) -> None:
    """Raises ``UsageError`` for what cannot be."""
    if spec.ttl < 0:
        raise UsageError("ttl is a number of minutes; 0 is for ever")
    indexes_of(spec)


def index_for(path: str, indexes: Sequence[Index]) -> Index:
    """The entry for items at ``path``: the one with the longest prefix."""
    return next(index for index in indexes if path.startswith(index.path))


def _path(prefix: Sequence[str]) -> str:
    for label in prefix:
        if not label or DOT in label:
            raise UsageError(f"the prefix {list(prefix)} has a label that is empty or has a dot")
    return "".join(f"{label}{DOT}" for label in prefix)
