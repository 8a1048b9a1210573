"""What clients do with documents."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy import Row

from app.access.structs import Principal
from app.base.errors import Conflict, Invalid, NotFound, Unreadable
from app.db.engine import Database
from app.db.session import Writer
from app.documents import queries
from app.documents.beginning import Beginning
from app.documents.describing import Described, described
from app.documents.extraction import Extraction, Source
from app.documents.finding import Finding
from app.documents.formats import FORMATS
from app.documents.queries import CONTENT, TEXT
from app.documents.removing import Removing
from app.documents.structs import RESOURCE, Chunk, Document, PassageSearch, namespace_of
from app.documents.uploads import Incoming, Upload, Uploaded
from app.idempotency import queries as keys
from app.idempotency.structs import Key, Made
from app.runs.entries import Accept, Claimed
from app.tools.port import Passage

REMOVE_SECONDS = 5.0
"""What a request to delete may take; the sweep does the rest."""
CREATED, THERE = 202, 200


class Added(NamedTuple):
    """What came of an upload: a document that is ingested now (202), or one that was there (200)."""

    document: Document | msgspec.Raw
    status: int


class Download(NamedTuple):
    """What was uploaded, part by part."""

    document: Document
    parts: AsyncIterator[bytes]


class DocumentService:
    """The documents of all tenants."""

    def __init__(
        self, database: Database, beginning: Beginning, extraction: Extraction, finding: Finding, removing: Removing
    ) -> None:
        self._database = database
        self._beginning = beginning
        self._extraction = extraction
        self._finding = finding
        self.removing = removing

    async def add(self, principal: Principal, incoming: Incoming, key: Key | None) -> Added:
        """Take a document in and begin to ingest it; one that is there already is told of.

        Raises ``Invalid`` for what cannot be read, ``UnsupportedType``, ``TooLarge``; nothing of it stays then.
        """
        upload = Upload(self._database, principal.tenant_id, incoming)
        kept = False
        try:
            uploaded = await upload.receive()
            about = await _stamped(principal, described(incoming.fields, incoming.filename), uploaded)
            await self._check(principal.tenant_id, uploaded)
            added = await self._accept(principal, uploaded, about, key)
            kept = isinstance(added.document, Document) and added.document.document_id == uploaded.document_id
        finally:
            if not kept:
                await upload.discard()
        return added

    async def _check(self, tenant_id: UUID, uploaded: Uploaded) -> None:
        """Open what a program must read. Raises ``Invalid`` for a broken one."""
        if uploaded.format.parsed:
            content = queries.stored(self._database, tenant_id, uploaded.document_id, CONTENT)
            try:
                kind, charset = uploaded.format.content_type, uploaded.charset or ""
                await self._extraction.check(Source(content, kind, charset, tenant_id, uploaded.size))
            except Unreadable as error:
                raise Invalid(str(error), (("/file", "cannot be read"),)) from error

    async def _accept(self, principal: Principal, uploaded: Uploaded, about: Described, key: Key | None) -> Added:
        if key is not None:
            key = msgspec.structs.replace(key, fingerprint=_digest(uploaded.sha256, about))
        async with self._beginning.admitted(principal, uploaded.document_id, about.metadata) as entry:
            try:
                added, claimed = await self._accept_once(entry, uploaded, about, key)
            except sa.exc.IntegrityError as error:
                if not isinstance(getattr(error.orig, "__cause__", None), asyncpg.UniqueViolationError):
                    raise
                # the same document was accepted at this very moment
                added, claimed = await self._accept_once(entry, uploaded, about, key)
            self._beginning.launch(entry, claimed)
        return added

    async def _accept_once(
        self, entry: Accept, uploaded: Uploaded, about: Described, key: Key | None
    ) -> tuple[Added, Claimed | None]:
        tenant_id = entry.tenant_id
        async with self._database.writing(tenant_id) as session:
            made = None if key is None else await keys.take(session, tenant_id, key)
            if made is not None:
                return Added(msgspec.Raw(made.answer), CREATED), None
            fingerprint = _digest(uploaded.sha256, about.metadata, uploaded.format.content_type)
            there = await queries.same(session, tenant_id, about.collection, fingerprint)
            claimed = None
            if there is None:
                claimed = await self._begin(session, entry, uploaded, about, fingerprint)
            elif there.status == "failed":
                entry = self._beginning.of(entry, there.document_id)
                claimed = await self._beginning.accept(session, entry)
                again = {"run_id": claimed.run_id, "thread_id": claimed.thread_id}
                await queries.accept(session, tenant_id, there.document_id, again)
            row = await queries.get(session, tenant_id, uploaded.document_id if there is None else there.document_id)
            assert row is not None
            document = shown(row)
            if key is not None:
                await keys.keep(session, tenant_id, key, Made(answer=msgspec.json.encode(document)))
        return Added(document, THERE if claimed is None else CREATED), claimed

    async def _begin(
        self, session: Writer, entry: Accept, uploaded: Uploaded, about: Described, fingerprint: bytes
    ) -> Claimed:
        claimed = await self._beginning.accept(session, entry)
        values: dict[str, Any] = {
            "collection": about.collection,
            "namespace": namespace_of(about.collection, uploaded.document_id),
            "title": about.title,
            "filename": about.filename,
            "charset": uploaded.charset,
            "size": uploaded.size,
            "sha256": uploaded.sha256,
            "fingerprint": fingerprint,
            "metadata": about.metadata,
            "characters": uploaded.characters,
            "run_id": claimed.run_id,
            "thread_id": claimed.thread_id,
        }
        await queries.accept(session, entry.tenant_id, uploaded.document_id, values)
        return claimed

    async def get(self, who: Principal, document_id: UUID) -> Document:
        """One document. Raises ``NotFound``."""
        return shown(await self._row(who, document_id))

    async def _row(self, who: Principal, document_id: UUID) -> Row[Any]:
        owned = await who.permit(RESOURCE, "read", document_id=document_id)
        async with self._database.reading(who.tenant_id, owned) as session:
            row = await queries.get(session, who.tenant_id, document_id)
        if row is None:
            raise _unknown(document_id)
        return row

    async def page(
        self, who: Principal, collection: str | None, status: str | None, limit: int, offset: int
    ) -> tuple[list[Document], int]:
        """A page of documents, the newest first, and how many there are."""
        about = {"collection": collection, "status": status, "limit": limit, "offset": offset}
        owned = await who.permit(RESOURCE, "search", **about)
        conditions = queries.conditions_of(who.tenant_id, collection, status)
        async with self._database.reading(who.tenant_id, owned) as session:
            rows, total = await queries.page(session, conditions, limit, offset)
        return [shown(row) for row in rows], total

    async def chunks(self, who: Principal, document_id: UUID, limit: int, offset: int) -> tuple[list[Chunk], int]:
        """A page of a document's chunks, in their order, and how many there are by now. Raises ``NotFound``."""
        row = await self._row(who, document_id)
        async with self._database.reading(who.tenant_id) as session:
            rows = await queries.chunks(session, who.tenant_id, row.namespace, limit, offset)
        return [msgspec.json.decode(one.value, type=Chunk) for one in rows], row.chunks

    async def content(self, who: Principal, document_id: UUID) -> Download:
        """What was uploaded. Raises ``NotFound``."""
        document = await self.get(who, document_id)
        return Download(document, queries.stored(self._database, who.tenant_id, document_id, CONTENT))

    async def text(self, who: Principal, document_id: UUID) -> Download:
        """The text that offsets count in. Raises ``NotFound``, ``Conflict`` before it is there."""
        document = await self.get(who, document_id)
        if document.characters is None:
            raise Conflict("The text is not taken out of the document yet: wait for its run.")
        kind = TEXT if FORMATS[document.content_type].parsed else CONTENT
        return Download(document, queries.stored(self._database, who.tenant_id, document_id, kind))

    async def delete(self, principal: Principal, document_id: UUID) -> None:
        """Remove a document with its chunks; its run is stopped. Raises ``NotFound``."""
        tenant_id = principal.tenant_id
        owned = await principal.permit(RESOURCE, "delete", document_id=document_id)
        async with self._database.writing(tenant_id, owned) as session:
            row = await queries.mark_deleted(session, tenant_id, document_id)
        if row is None:
            raise _unknown(document_id)
        if row.run_id is not None:
            await self._beginning.stop(principal, row.run_id)
        await self.removing.remove(tenant_id, document_id, REMOVE_SECONDS)

    async def search(self, who: Principal, wanted: PassageSearch) -> list[Passage]:
        """Passages, the best first. Raises ``Invalid``."""
        return await self._finding.passages(who, wanted)


async def _stamped(who: Principal, about: Described, uploaded: Uploaded) -> Described:
    """What handlers of the operator's let a person say of a document. Raises ``Forbidden``, ``Refused``."""
    told = {name: getattr(about, name) for name in ("collection", "title", "filename")}
    told |= {"document_id": uploaded.document_id, "content_type": uploaded.format.content_type, "size": uploaded.size}
    _, metadata = await who.stamp(RESOURCE, "create", about.metadata, **told)
    return msgspec.structs.replace(about, metadata=metadata or {})


def shown(row: Row[Any]) -> Document:
    """A document as clients see it."""
    values = {name: getattr(row, name) for name in Document.__struct_fields__}
    values |= {"sha256": row.sha256.hex(), "metadata": msgspec.Raw(row.metadata.encode())}
    return Document(**values)


def _digest(*what: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).digest()


def _unknown(document_id: UUID) -> NotFound:
    return NotFound(f"Document with ID {document_id} not found")
