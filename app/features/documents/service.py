"""Use cases of documents: upload, list, read, search, delete.

The run that ingests a document is accepted with the document in one transaction and launched after its commit.
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
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.infra.db.session import Writer
from app.security.access.structs import Principal
from app.security.idempotency import queries as keys
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse

STREAM_MODES: list[StreamMode] = ["custom", "updates", "values"]

REMOVE_SECONDS = 5.0
"""Time limit of a deletion within its request; the sweep does the rest."""


class IngestRunStarter:
    """Starts and stops runs of the ingestion agent."""

    def __init__(self, queue: RunQueue, factory: RunFactory, runs: RunService, assistants: AssistantService) -> None:
        self._queue = queue
        self._factory = factory
        self._runs = runs
        self._assistants = assistants

    @contextlib.asynccontextmanager
    async def admitted(
        self, principal: Principal, document_id: UUID, metadata: dict[str, Any]
    ) -> AsyncIterator[AcceptEntry]:
        """Yield a run to accept within the block, if admission allows it. Raises ``Limited``, ``Unavailable``."""
        self._runs.check_open()
        body = RunCreate(
            assistant_id=INGEST,
            input={DOCUMENT_ID: str(document_id)},
            metadata={**metadata, DOCUMENT_ID: str(document_id)},
            stream_mode=list(STREAM_MODES),
        )
        entry = await self._factory.entry(principal.tenant_id, None, body, RunRequester(internal=True))
        async with self._runs.admission.admitted([entry], principal.limits) as (admitted,):
            yield admitted

    def for_document(self, entry: AcceptEntry, document_id: UUID) -> AcceptEntry:
        """Return ``entry`` for another document."""
        request = msgspec.json.decode(entry.request, type=RunRequest)
        request.input = {DOCUMENT_ID: str(document_id)}
        metadata = {**msgspec.json.decode(entry.metadata), DOCUMENT_ID: str(document_id)}
        encode = msgspec.json.encode
        return msgspec.structs.replace(entry, request=encode(request), metadata=encode(metadata).decode())

    async def accept(self, session: Writer, entry: AcceptEntry) -> ClaimedRun:
        """Accept the run in the caller's transaction."""
        await self._assistants.add_own(session, entry.tenant_id, INGEST)
        (claimed,) = await self._queue.accept_on(await session.driver(), [entry])
        return claimed

    def launch(self, entry: AcceptEntry, claimed: ClaimedRun | None) -> None:
        """Launch the run after the commit; ``claimed`` None releases the admission instead."""
        if claimed is None:
            self._runs.admission.release([entry])
        else:
            self._runs.launch(entry, claimed)

    async def stop(self, principal: Principal, run_id: UUID) -> None:
        """Cancel a run if it has not ended."""
        await self._runs.stop(principal, run_id)


ACCEPTED, EXISTING = 202, 200


class UploadResult(NamedTuple):
    """The document of an upload and the response status: 202 ingested now, 200 existing."""

    document: Document | msgspec.Raw
    status: int


class Download(NamedTuple):
    """A document with its content in parts."""

    document: Document
    parts: AsyncIterator[bytes]


class DocumentService:
    """The documents of all tenants."""

    def __init__(
        self,
        database: Database,
        run_starter: IngestRunStarter,
        extraction: TextExtractor,
        search: DocumentSearch,
        removing: DocumentGarbageCollector,
    ) -> None:
        self._database = database
        self._run_starter = run_starter
        self._extraction = extraction
        self._search = search
        self.removing = removing

    async def add(self, principal: Principal, incoming: FileStream, key: IdempotencyKey | None) -> UploadResult:
        """Store an upload and start its ingestion, or return the existing document with the same content.

        Raises ``Invalid`` if it cannot be read, ``UnsupportedType``, ``TooLarge``; nothing is stored then.
        """
        upload = Upload(self._database, principal.tenant_id, incoming)
        stored = False
        try:
            uploaded = await upload.receive()
            details = await _stamp(principal, upload_metadata(incoming.fields, incoming.filename), uploaded)
            await self._check(principal.tenant_id, uploaded)
            added = await self._accept(principal, uploaded, details, key)
            stored = isinstance(added.document, Document) and added.document.document_id == uploaded.document_id
        finally:
            if not stored:
                await upload.discard()
        return added

    async def _check(self, tenant_id: UUID, uploaded: Uploaded) -> None:
        """Open a document that has to be parsed. Raises ``Invalid`` if it cannot be read."""
        if uploaded.format.parsed:
            content = queries.read_parts(self._database, tenant_id, uploaded.document_id, CONTENT)
            try:
                kind, charset = uploaded.format.content_type, uploaded.charset or ""
                await self._extraction.check(DocumentSource(content, kind, charset, tenant_id, uploaded.size))
            except Unreadable as error:
                raise Invalid(str(error), (("/file", "cannot be read"),)) from error

    async def _accept(
        self, principal: Principal, uploaded: Uploaded, details: UploadMetadata, key: IdempotencyKey | None
    ) -> UploadResult:
        if key is not None:
            key = msgspec.structs.replace(key, fingerprint=_digest(uploaded.sha256, details))
        async with self._run_starter.admitted(principal, uploaded.document_id, details.metadata) as entry:
            try:
                added, claimed = await self._accept_once(entry, uploaded, details, key)
            except sa.exc.IntegrityError as error:
                if not isinstance(getattr(error.orig, "__cause__", None), asyncpg.UniqueViolationError):
                    raise
                # the same document was accepted concurrently
                added, claimed = await self._accept_once(entry, uploaded, details, key)
            self._run_starter.launch(entry, claimed)
        return added

    async def _accept_once(
        self, entry: AcceptEntry, uploaded: Uploaded, details: UploadMetadata, key: IdempotencyKey | None
    ) -> tuple[UploadResult, ClaimedRun | None]:
        tenant_id = entry.tenant_id
        async with self._database.writing(tenant_id) as session:
            replayed = None if key is None else await keys.take(session, tenant_id, key)
            if replayed is not None:
                return UploadResult(msgspec.Raw(replayed.answer), ACCEPTED), None
            fingerprint = _digest(uploaded.sha256, details.metadata, uploaded.format.content_type)
            existing = await queries.find_duplicate(session, tenant_id, details.collection, fingerprint)
            claimed = None
            if existing is None:
                claimed = await self._begin(session, entry, uploaded, details, fingerprint)
            elif existing.status == "failed":
                entry = self._run_starter.for_document(entry, existing.document_id)
                claimed = await self._run_starter.accept(session, entry)
                values = {"run_id": claimed.run_id, "thread_id": claimed.thread_id}
                await queries.accept(session, tenant_id, existing.document_id, values)
            row = await queries.get(
                session, tenant_id, uploaded.document_id if existing is None else existing.document_id
            )
            assert row is not None
            document = document_view(row)
            if key is not None:
                await keys.save_response(
                    session, tenant_id, key, ReplayedResponse(answer=msgspec.json.encode(document))
                )
        return UploadResult(document, EXISTING if claimed is None else ACCEPTED), claimed

    async def _begin(
        self, session: Writer, entry: AcceptEntry, uploaded: Uploaded, details: UploadMetadata, fingerprint: bytes
    ) -> ClaimedRun:
        claimed = await self._run_starter.accept(session, entry)
        values: dict[str, Any] = {
            "collection": details.collection,
            "namespace": namespace_of(details.collection, uploaded.document_id),
            "title": details.title,
            "filename": details.filename,
            "charset": uploaded.charset,
            "size": uploaded.size,
            "sha256": uploaded.sha256,
            "fingerprint": fingerprint,
            "metadata": details.metadata,
            "characters": uploaded.characters,
            "run_id": claimed.run_id,
            "thread_id": claimed.thread_id,
        }
        await queries.accept(session, entry.tenant_id, uploaded.document_id, values)
        return claimed

    async def get(self, principal: Principal, document_id: UUID) -> Document:
        """Return a document. Raises ``NotFound``."""
        return document_view(await self._row(principal, document_id))

    async def _row(self, principal: Principal, document_id: UUID) -> Row[Any]:
        metadata_filter = await principal.permit(RESOURCE, "read", document_id=document_id)
        async with self._database.reading(principal.tenant_id, metadata_filter) as session:
            row = await queries.get(session, principal.tenant_id, document_id)
        if row is None:
            raise _not_found(document_id)
        return row

    async def page(
        self, principal: Principal, collection: str | None, status: str | None, limit: int, offset: int
    ) -> tuple[list[Document], int]:
        """Return a page of documents, the newest first, and the total."""
        request = {"collection": collection, "status": status, "limit": limit, "offset": offset}
        metadata_filter = await principal.permit(RESOURCE, "search", **request)
        conditions = queries.conditions_of(principal.tenant_id, collection, status)
        async with self._database.reading(principal.tenant_id, metadata_filter) as session:
            rows, total = await queries.page(session, conditions, limit, offset)
        return [document_view(row) for row in rows], total

    async def chunks(self, principal: Principal, document_id: UUID, limit: int, offset: int) -> tuple[list[Chunk], int]:
        """Return a page of a document's chunks in order, and their number so far. Raises ``NotFound``."""
        row = await self._row(principal, document_id)
        async with self._database.reading(principal.tenant_id) as session:
            rows = await queries.chunks(session, principal.tenant_id, row.namespace, limit, offset)
        return [msgspec.json.decode(one.value, type=Chunk) for one in rows], row.chunks

    async def content(self, principal: Principal, document_id: UUID) -> Download:
        """Return the uploaded file. Raises ``NotFound``."""
        document = await self.get(principal, document_id)
        return Download(document, queries.read_parts(self._database, principal.tenant_id, document_id, CONTENT))

    async def text(self, principal: Principal, document_id: UUID) -> Download:
        """Return the extracted text. Raises ``NotFound``; ``Conflict`` if it is not extracted yet."""
        document = await self.get(principal, document_id)
        if document.characters is None:
            raise Conflict("The text is not extracted yet: wait for the run of the document.")
        kind = TEXT if FORMATS[document.content_type].parsed else CONTENT
        return Download(document, queries.read_parts(self._database, principal.tenant_id, document_id, kind))

    async def delete(self, principal: Principal, document_id: UUID) -> None:
        """Delete a document with its chunks, and cancel its run. Raises ``NotFound``."""
        tenant_id = principal.tenant_id
        metadata_filter = await principal.permit(RESOURCE, "delete", document_id=document_id)
        async with self._database.writing(tenant_id, metadata_filter) as session:
            row = await queries.mark_deleted(session, tenant_id, document_id)
        if row is None:
            raise _not_found(document_id)
        if row.run_id is not None:
            await self._run_starter.stop(principal, row.run_id)
        await self.removing.remove(tenant_id, document_id, REMOVE_SECONDS)

    async def search(self, principal: Principal, search: PassageSearch) -> list[Passage]:
        """Return passages, the best first. Raises ``Invalid``."""
        return await self._search.passages(principal, search)


async def _stamp(principal: Principal, upload: UploadMetadata, uploaded: Uploaded) -> UploadMetadata:
    """Apply the operator's auth handlers to the metadata of an upload. Raises ``Forbidden``, ``Refused``."""
    facts = {name: getattr(upload, name) for name in ("collection", "title", "filename")}
    facts |= {"document_id": uploaded.document_id, "content_type": uploaded.format.content_type, "size": uploaded.size}
    _, metadata = await principal.stamp(RESOURCE, "create", upload.metadata, **facts)
    return msgspec.structs.replace(upload, metadata=metadata or {})


def document_view(row: Row[Any]) -> Document:
    """Return a document as clients see it."""
    return from_row(Document, row, sha256=row.sha256.hex(), metadata=msgspec.Raw(row.metadata.encode()))


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).digest()


def _not_found(document_id: UUID) -> NotFound:
    return NotFound(f"Document with ID {document_id} not found")
