"""The wire shapes of documents."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from app.agents.tools.port import Passage
from app.base.errors import Invalid
from app.features.store.validation import APART

ROOT = f"{APART}documents"
"""The label of the store's namespaces below which chunks lie: nobody else's."""
RESOURCE = "documents"
"""As handlers of the operator's know it, with the actions ``create``, ``read``, ``search`` and ``delete``."""
DEFAULT = "default"
COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Status = Literal["pending", "running", "ready", "failed"]


class Document(msgspec.Struct, kw_only=True):
    """A document. ``run_id`` is the run that ingests it, on ``thread_id``; ``characters`` are those of its text.

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
    """A piece of a document: ``text`` is the document's text from character ``start`` to before ``end``."""

    chunk: int
    start: int
    end: int
    text: str
    page: int | msgspec.UnsetType = msgspec.UNSET


class PassageSearch(msgspec.Struct, kw_only=True):
    """Passages that answer ``query``: by meaning and by words, the best first.

    In one ``collection``, or in all; in some documents; in those whose metadata pass ``filter`` (as in the store).
    """

    query: Annotated[str, msgspec.Meta(min_length=1)]
    collection: str | None = None
    document_ids: Annotated[list[UUID], msgspec.Meta(max_length=100)] | None = None
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0


class FoundPassages(msgspec.Struct, kw_only=True):
    """A page of passages, each with what a citation needs."""

    passages: list[Passage]


def check_collection(name: str) -> str:
    """``name``, if a collection may be called so. Raises ``Invalid``."""
    if COLLECTION.fullmatch(name):
        return name
    raise Invalid(
        f"`collection` {name[:100]!r} is no name: use up to 64 letters, digits, - and _, beginning with a letter or a "
        "digit.",
        (("/collection", "no name"),),
    )


def namespace_of(collection: str, document_id: UUID | None = None) -> str:
    """Where in the store the chunks of a collection, or of one of its documents, lie."""
    whole = f"{ROOT}.{collection}." if collection else f"{ROOT}."
    return whole if document_id is None else f"{whole}{document_id}."
