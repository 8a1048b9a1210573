"""HTTP routes of documents: upload, list, read, search, delete."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from app.features.access.guard import READS, STARTS_RUNS, WRITES, CurrentPrincipal
from app.features.access.idempotency import bare_key_in
from app.features.documents.service import DocumentService
from app.features.documents.structs import Chunk, Document, FoundPassages, PassageSearch
from app.infra.http.query_params import AnyRequest, Page, page_headers, page_of
from app.infra.http.request_bodies import UPLOADS
from app.infra.http.uploads import IncomingFile

Id = FromPath[UUID]
Service = NamedDependency[DocumentService]
RequestedPage = NamedDependency[Page]
Collection = Annotated[str | None, QueryParameter(max_length=64, description="A collection; left out: all.")]

_WORDS = Schema(type=OpenAPIType.STRING)
_FILE = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
_FORM = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "file": _FILE,
        "collection": _WORDS,
        "title": _WORDS,
        "metadata": Schema(type=OpenAPIType.STRING, description="The text of a JSON object."),
    },
    required=["file"],
)


@dataclass
class UploadOperation(Operation):
    """OpenAPI operation of an upload: a raw body or a form."""

    def __post_init__(self) -> None:
        """Describe the request body."""
        kinds = ("text/plain", "text/markdown", "text/html", "application/pdf")
        content = {kind: OpenAPIMediaType(schema=_FILE) for kind in kinds}
        content["multipart/form-data"] = OpenAPIMediaType(schema=_FORM)
        self.request_body = RequestBody(content=content, required=True)


class DocumentsController(Controller):
    """Documents, which are chunked and embedded in the background and searched by meaning and by words."""

    path = "/documents"
    tags = ("documents",)
    opt = WRITES
    dependencies = {"page": Provide(page_of, sync_to_thread=False)}  # noqa: RUF012  as the framework declares it

    @post(status_code=202, operation_class=UploadOperation, opt={**STARTS_RUNS, **UPLOADS}, summary="Upload a document")
    async def upload(
        self,
        principal: CurrentPrincipal,
        documents: Service,
        max_document_bytes: NamedDependency[int],
        request: AnyRequest,
        collection: FromQuery[str | None] = None,
        filename: FromQuery[str | None] = None,
    ) -> Response[Any]:
        """Text, Markdown, HTML or PDF, as the body (with ``title`` and ``metadata`` in the query string) or in a form.

        202: it is stored and the run in the response ingests it; 200: it exists already. Accepts an
        ``Idempotency-Key``.
        """
        added = await documents.add(principal, IncomingFile(request, max_document_bytes), bare_key_in(request))
        return Response(added.document, status_code=added.status)

    @get(opt=READS, summary="List documents")
    async def list_all(
        self,
        principal: CurrentPrincipal,
        documents: Service,
        page: RequestedPage,
        collection: Collection = None,
        status: FromQuery[Literal["pending", "running", "ready", "failed"] | None] = None,
    ) -> Response[list[Document]]:
        """Newest first; totals are in the ``X-Pagination-*`` headers."""
        found, total = await documents.page(principal, collection, status, page.limit, page.offset)
        return Response(found, headers=page_headers(total, page.offset, len(found)))

    @post("/search", status_code=200, opt=READS, summary="Search documents")
    async def search(
        self, data: JSONBody[PassageSearch], principal: CurrentPrincipal, documents: Service
    ) -> FoundPassages:
        """Passages, the best first, each with the data of a citation."""
        return FoundPassages(passages=await documents.search(principal, data))

    @get("/{document_id:str}", opt=READS, summary="One document")
    async def get_one(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Document:
        """A document with the progress of its ingestion."""
        return await documents.get(principal, document_id)

    @get("/{document_id:str}/chunks", opt=READS, summary="The chunks of a document")
    async def chunks(
        self, document_id: Id, principal: CurrentPrincipal, documents: Service, page: RequestedPage
    ) -> Response[list[Chunk]]:
        """Chunks in order, those made so far; totals are in the ``X-Pagination-*`` headers."""
        found, total = await documents.chunks(principal, document_id, page.limit, page.offset)
        return Response(found, headers=page_headers(total, page.offset, len(found)))

    @get("/{document_id:str}/content", opt=READS, summary="The uploaded file", media_type="application/octet-stream")
    async def content(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Stream:
        """The uploaded file, byte for byte."""
        download = await documents.content(principal, document_id)
        document = download.document
        name = document.filename or str(document.document_id)
        headers = {
            "Content-Type": document.content_type,  # the route's media type would override the response's
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Content-Length": str(document.size),
        }
        return Stream(_stream(download.parts), headers=headers)

    @get("/{document_id:str}/text", opt=READS, summary="The text of a document", media_type="text/plain")
    async def text(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Stream:
        """The extracted text, in which offsets count characters. 409 until it is extracted."""
        download = await documents.text(principal, document_id)
        return Stream(_stream(download.parts), media_type="text/plain; charset=utf-8")

    @delete("/{document_id:str}", summary="Delete a document")
    async def delete_one(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> None:
        """Delete a document and its chunks for all readers at once, and cancel its ingestion."""
        await documents.delete(principal, document_id)


async def _stream(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part
