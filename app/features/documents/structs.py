"""The wire shapes of documents."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from app.agents.tools.port import Passage
from app.base.errors import Invalid
from app.features.store.validation import RESERVED

ROOT = f"{RESERVED}documents"
"""Root of the namespaces of chunks in the store, reserved for them."""
RESOURCE = "documents"
"""Resource name for auth handlers; its actions are ``create``, ``read``, ``search`` and ``delete``."""
DEFAULT_COLLECTION = "default"
COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Status = Literal["pending", "running", "ready", "failed"]


class Document(msgspec.Struct, kw_only=True):
    """A document. ``run_id``: the run that ingests it, on ``thread_id``; ``characters``: the length of its text.

    ``status``: ``pending`` and ``running`` while it is ingested, ``ready`` once searches find it, ``failed`` with an
    ``error``. ``chunks`` counts those made so far.
    """

    document_id: UUID
    collection: str
    title: str | None
    filename: str | None
    content_type: str
    size: int
    sha256: str
    metadata: msgspec.Raw
    status: Status
    error: str | None
    characters: int | None
    pages: int | None
    chunks: int
    run_id: UUID | None
    thread_id: UUID | None
    created_at: datetime
    updated_at: datetime


class Chunk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A chunk of a document: the characters of its text from ``start`` to before ``end``."""

    chunk: int
    start: int
    end: int
    text: str
    page: int | msgspec.UnsetType = msgspec.UNSET


class PassageSearch(msgspec.Struct, kw_only=True):
    """A search for passages by meaning and by words, the best first.

    In one ``collection`` or all, in some documents, or in those whose metadata match ``filter`` (as in the store).
    """

    query: Annotated[str, msgspec.Meta(min_length=1)]
    collection: str | None = None
    document_ids: Annotated[list[UUID], msgspec.Meta(max_length=100)] | None = None
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0


class FoundPassages(msgspec.Struct, kw_only=True):
    """A page of passages, each with the data of a citation."""

    passages: list[Passage]


def check_collection(name: str) -> str:
    """Return ``name``. Raises ``Invalid`` if it is not a valid collection name."""
    if COLLECTION.fullmatch(name):
        return name
    raise Invalid(
        f"`collection` {name[:100]!r} is not a valid name: use up to 64 letters, digits, - and _, beginning "
        "with a letter or a digit.",
        (("/collection", "invalid name"),),
    )


def namespace_of(collection: str, document_id: UUID | None = None) -> str:
    """Return the namespace of the chunks of a collection, or of one of its documents."""
    root = f"{ROOT}.{collection}." if collection else f"{ROOT}."
    return root if document_id is None else f"{root}{document_id}."
