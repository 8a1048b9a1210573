"""The wire shapes of the store."""

from datetime import datetime
from typing import Any

import msgspec


class ItemPut(msgspec.Struct, kw_only=True):
    """An item to store. ``value`` is an object; ``ttl`` are minutes, null for ever, left out for the file's.

    ``index`` false leaves it out of searches by ``query``; a list names the fields that these look at.
    """

    namespace: list[str]
    key: str
    value: msgspec.Raw
    index: bool | list[str] | None = None
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET


class ItemDelete(msgspec.Struct, kw_only=True):
    """The item to remove."""

    namespace: list[str]
    key: str


class ItemSearch(msgspec.Struct, kw_only=True):
    """Items at and below a namespace. ``filter`` has fields of the value with what they equal, or with operators.

    ``query`` finds by meaning and by words, best first; without it the newest come first.
    """

    namespace_prefix: list[str] = []
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    query: str | None = None
    refresh_ttl: bool | None = None


class NamespaceSearch(msgspec.Struct, kw_only=True):
    """Namespaces that begin with ``prefix`` and end with ``suffix`` (``*`` is any label), cut at ``max_depth``."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0


class Item(msgspec.Struct, kw_only=True):
    """A value at a key in a namespace."""

    namespace: list[str]
    key: str
    value: msgspec.Raw
    created_at: datetime
    updated_at: datetime


class FoundItem(Item, kw_only=True):
    """An item that a search has found. ``score`` is null without a ``query``."""

    score: float | None = None


class FoundItems(msgspec.Struct, kw_only=True):
    """A page of items."""

    items: list[FoundItem]


class FoundNamespaces(msgspec.Struct, kw_only=True):
    """A page of namespaces, in order."""

    namespaces: list[list[str]]
