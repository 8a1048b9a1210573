"""What clients do with documents.

How a document's run begins: accepted with the document in one transaction, launched when that is committed.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy import Row

from app.agents.tools.port import Passage
from app.base.errors import Conflict, Invalid, NotFound, Unreadable
from app.engine.entries import AcceptEntry, ClaimedRun
from app.engine.queue.claims import RunQueue
from app.engine.structs import RunCreate, RunRequest, StreamMode
from app.features.assistants.service import AssistantService
from app.features.documents import queries
from app.features.documents.extraction import DocumentSource, TextExtractor
from app.features.documents.formats import FORMATS
from app.features.documents.garbage_collection import DocumentGarbageCollector
from app.features.documents.ingest import DOCUMENT_ID, INGEST
from app.features.documents.queries import CONTENT, TEXT
from app.features.documents.search import DocumentSearch
from app.features.documents.structs import RESOURCE, Chunk, Document, PassageSearch, namespace_of
from app.features.documents.uploads import FileStream, Upload, Uploaded, UploadMetadata, upload_metadata
from app.features.runs.creation import RunFactory, RunRequester
from app.features.runs.service import RunService
from app.infra.db.engine import Database
from app.infra.db.session import Writer
from app.security.access.structs import Principal
from app.security.idempotency import queries as keys
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse

MODES: list[StreamMode] = ["custom", "updates", "values"]


class IngestRunStarter:
    """Makes runs of the agent that ingests."""

    def __init__(self, claims: RunQueue, creation: RunFactory, runs: RunService, assistants: AssistantService) -> None:
        self._claims = claims
        self._creation = creation
        self._runs = runs
        self._assistants = assistants

    @contextlib.asynccontextmanager
    async def admitted(
        self, principal: Principal, document_id: UUID, metadata: dict[str, Any]
    ) -> AsyncIterator[AcceptEntry]:
        """The run to accept in the block, if there is room for one. Raises ``Limited``, ``Unavailable``."""
        self._runs.check_open()
        body = RunCreate(
            assistant_id=INGEST,
            input={DOCUMENT_ID: str(document_id)},
            metadata={**metadata, DOCUMENT_ID: str(document_id)},
            stream_mode=list(MODES),
        )
        asked = await self._creation.entry(principal.tenant_id, None, body, RunRequester(internal=True))
        async with self._runs.admission.admitted([asked], principal.limits) as (entry,):
            yield entry

    def of(self, entry: AcceptEntry, document_id: UUID) -> AcceptEntry:
        """The same for another document."""
        request = msgspec.json.decode(entry.request, type=RunRequest)
        request.input = {DOCUMENT_ID: str(document_id)}
        metadata = {**msgspec.json.decode(entry.metadata), DOCUMENT_ID: str(document_id)}
        encode = msgspec.json.encode
        return msgspec.structs.replace(entry, request=encode(request), metadata=encode(metadata))

    async def accept(self, session: Writer, entry: AcceptEntry) -> ClaimedRun:
        """Accept the run in a transaction of the caller's."""
        await self._assistants.add_own(session, entry.tenant_id, INGEST)
        (claimed,) = await self._claims.accept_on(await session.driver(), [entry])
        return claimed

    def launch(self, entry: AcceptEntry, claimed: ClaimedRun | None) -> None:
        """What was accepted is committed: run it. None: nothing runs after all."""
        if claimed is None:
            self._runs.admission.release([entry])
        else:
            self._runs.launch(entry, claimed)

    async def stop(self, principal: Principal, run_id: UUID) -> None:
        """Cancel a run, if it has not ended."""
        await self._runs.stop(principal, run_id)


REMOVE_SECONDS = 5.0
"""What a request to delete may take; the sweep does the rest."""
CREATED, THERE = 202, 200


class UploadResult(NamedTuple):
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
        self,
        database: Database,
        beginning: IngestRunStarter,
        extraction: TextExtractor,
        finding: DocumentSearch,
        removing: DocumentGarbageCollector,
    ) -> None:
        self._database = database
        self._beginning = beginning
        self._extraction = extraction
        self._finding = finding
        self.removing = removing

    async def add(self, principal: Principal, incoming: FileStream, key: IdempotencyKey | None) -> UploadResult:
        """Take a document in and begin to ingest it; one that is there already is told of.

        Raises ``Invalid`` for what cannot be read, ``UnsupportedType``, ``TooLarge``; nothing of it stays then.
        """
        upload = Upload(self._database, principal.tenant_id, incoming)
        kept = False
        try:
            uploaded = await upload.receive()
            about = await _stamped(principal, upload_metadata(incoming.fields, incoming.filename), uploaded)
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
                await self._extraction.check(DocumentSource(content, kind, charset, tenant_id, uploaded.size))
            except Unreadable as error:
                raise Invalid(str(error), (("/file", "cannot be read"),)) from error

    async def _accept(
        self, principal: Principal, uploaded: Uploaded, about: UploadMetadata, key: IdempotencyKey | None
    ) -> UploadResult:
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
        self, entry: AcceptEntry, uploaded: Uploaded, about: UploadMetadata, key: IdempotencyKey | None
    ) -> tuple[UploadResult, ClaimedRun | None]:
        tenant_id = entry.tenant_id
        async with self._database.writing(tenant_id) as session:
            made = None if key is None else await keys.take(session, tenant_id, key)
            if made is not None:
                return UploadResult(msgspec.Raw(made.answer), CREATED), None
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
            document = document_view(row)
            if key is not None:
                await keys.save_response(
                    session, tenant_id, key, ReplayedResponse(answer=msgspec.json.encode(document))
                )
        return UploadResult(document, THERE if claimed is None else CREATED), claimed

    async def _begin(
        self, session: Writer, entry: AcceptEntry, uploaded: Uploaded, about: UploadMetadata, fingerprint: bytes
    ) -> ClaimedRun:
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

    async def get(self, principal: Principal, document_id: UUID) -> Document:
        """One document. Raises ``NotFound``."""
        return document_view(await self._row(principal, document_id))

    async def _row(self, principal: Principal, document_id: UUID) -> Row[Any]:
        owned = await principal.permit(RESOURCE, "read", document_id=document_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.get(session, principal.tenant_id, document_id)
        if row is None:
            raise _unknown(document_id)
        return row

    async def page(
        self, principal: Principal, collection: str | None, status: str | None, limit: int, offset: int
    ) -> tuple[list[Document], int]:
        """A page of documents, the newest first, and how many there are."""
        about = {"collection": collection, "status": status, "limit": limit, "offset": offset}
        owned = await principal.permit(RESOURCE, "search", **about)
        conditions = queries.conditions_of(principal.tenant_id, collection, status)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows, total = await queries.page(session, conditions, limit, offset)
        return [document_view(row) for row in rows], total

    async def chunks(self, principal: Principal, document_id: UUID, limit: int, offset: int) -> tuple[list[Chunk], int]:
        """A page of a document's chunks, in their order, and how many there are by now. Raises ``NotFound``."""
        row = await self._row(principal, document_id)
        async with self._database.reading(principal.tenant_id) as session:
            rows = await queries.chunks(session, principal.tenant_id, row.namespace, limit, offset)
        return [msgspec.json.decode(one.value, type=Chunk) for one in rows], row.chunks

    async def content(self, principal: Principal, document_id: UUID) -> Download:
        """What was uploaded. Raises ``NotFound``."""
        document = await self.get(principal, document_id)
        return Download(document, queries.stored(self._database, principal.tenant_id, document_id, CONTENT))

    async def text(self, principal: Principal, document_id: UUID) -> Download:
        """The text that offsets count in. Raises ``NotFound``, ``Conflict`` before it is there."""
        document = await self.get(principal, document_id)
        if document.characters is None:
            raise Conflict("The text is not taken out of the document yet: wait for its run.")
        kind = TEXT if FORMATS[document.content_type].parsed else CONTENT
        return Download(document, queries.stored(self._database, principal.tenant_id, document_id, kind))

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

    async def search(self, principal: Principal, wanted: PassageSearch) -> list[Passage]:
        """Passages, the best first. Raises ``Invalid``."""
        return await self._finding.passages(principal, wanted)


async def _stamped(principal: Principal, about: UploadMetadata, uploaded: Uploaded) -> UploadMetadata:
    """What handlers of the operator's let a person say of a document. Raises ``Forbidden``, ``Refused``."""
    facts = {name: getattr(about, name) for name in ("collection", "title", "filename")}
    facts |= {"document_id": uploaded.document_id, "content_type": uploaded.format.content_type, "size": uploaded.size}
    _, metadata = await principal.stamp(RESOURCE, "create", about.metadata, **facts)
    return msgspec.structs.replace(about, metadata=metadata or {})


def document_view(row: Row[Any]) -> Document:
    """A document as clients see it."""
    values = {name: getattr(row, name) for name in Document.__struct_fields__}
    values |= {"sha256": row.sha256.hex(), "metadata": msgspec.Raw(row.metadata.encode())}
    return Document(**values)


def _digest(*what: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).digest()


def _unknown(document_id: UUID) -> NotFound:
    return NotFound(f"Document with ID {document_id} not found")
