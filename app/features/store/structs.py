"""The wire shapes of the store."""

from datetime import datetime
from typing import Any

import msgspec


class ItemPut(msgspec.Struct, kw_only=True):
    """An item to store. ``value``: an object. ``ttl``: minutes; null: no expiry; left out: the configured one.

    ``index``: false excludes it from searches by ``query``; a list names the fields to index.
    """

    namespace: list[str]
    key: str
    value: msgspec.Raw
    index: bool | list[str] | None = None
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET


class ItemDelete(msgspec.Struct, kw_only=True):
    """The item to delete."""

    namespace: list[str]
    key: str


class ItemSearch(msgspec.Struct, kw_only=True):
    """A search at and below a namespace. ``filter``: fields of the value with the values they equal, or with operators.

    ``query`` searches by meaning and by words, the best first; without it the newest come first.
    """

    namespace_prefix: list[str] = []
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    query: str | None = None
    refresh_ttl: bool | None = None


class NamespaceSearch(msgspec.Struct, kw_only=True):
    """Namespaces that start with ``prefix`` and end with ``suffix`` (``*``: any label), truncated to ``max_depth``."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0


class Item(msgspec.Struct, kw_only=True):
    """A value with its namespace and key."""

    namespace: list[str]
    key: str
    value: msgspec.Raw
    created_at: datetime
    updated_at: datetime


class FoundItem(Item, kw_only=True):
    """An item found by a search. ``score`` is null without a ``query``."""

    score: float | None = None


class FoundItems(msgspec.Struct, kw_only=True):
    """A page of items."""

    items: list[FoundItem]


class FoundNamespaces(msgspec.Struct, kw_only=True):
    """A page of namespaces, in order."""

    namespaces: list[list[str]]
