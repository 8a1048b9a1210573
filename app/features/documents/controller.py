"""HTTP routes of documents."""

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

from app.features.access.guard import READS, STARTS_RUNS, WRITES
from app.features.access.idempotency import bare_key_in
from app.features.documents.service import DocumentService
from app.features.documents.structs import Chunk, Document, FoundPassages, PassageSearch
from app.infra.http.query_params import AnyRequest, Page, page_headers, page_of
from app.infra.http.uploads import IncomingFile
from app.security.access.structs import Principal

Id = FromPath[UUID]
CurrentPrincipal = NamedDependency[Principal]
Service = NamedDependency[DocumentService]
RequestedPage = NamedDependency[Page]
Collection = Annotated[str | None, QueryParameter(max_length=64, description="One collection; left out: all.")]

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
    """The operation that takes a document: as the body, or in a form."""

    def __post_init__(self) -> None:
        """Say what the body may be."""
        kinds = ("text/plain", "text/markdown", "text/html", "application/pdf")
        content = {kind: OpenAPIMediaType(schema=_FILE) for kind in kinds}
        content["multipart/form-data"] = OpenAPIMediaType(schema=_FORM)
        self.request_body = RequestBody(content=content, required=True)


class DocumentsController(Controller):
    """Documents: uploaded, cut up and embedded in the background, found by meaning and by words."""

    path = "/documents"
    tags = ("documents",)
    opt = WRITES
    dependencies = {"page": Provide(page_of, sync_to_thread=False)}  # noqa: RUF012  as the framework declares it

    @post(status_code=202, operation_class=UploadOperation, opt=STARTS_RUNS, summary="Upload a document")
    async def upload(
        self,
        principal: CurrentPrincipal,
        documents: Service,
        document_most: NamedDependency[int],
        request: AnyRequest,
        collection: FromQuery[str | None] = None,
        filename: FromQuery[str | None] = None,
    ) -> Response[Any]:
        """Text, Markdown, HTML or PDF, as the body (``title`` and ``metadata`` in the address too) or in a form.

        202: it is stored, and the run in the answer ingests it; 200: it was there already. Takes an
        ``Idempotency-Key``.
        """
        added = await documents.add(principal, IncomingFile(request, document_most), bare_key_in(request))
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
        """Passages, the best first, each with what a citation needs."""
        return FoundPassages(passages=await documents.search(principal, data))

    @get("/{document_id:str}", opt=READS, summary="One document")
    async def get_one(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Document:
        """And how far its ingestion is."""
        return await documents.get(principal, document_id)

    @get("/{document_id:str}/chunks", opt=READS, summary="The chunks of a document")
    async def chunks(
        self, document_id: Id, principal: CurrentPrincipal, documents: Service, page: RequestedPage
    ) -> Response[list[Chunk]]:
        """In their order, as far as they are made; totals are in the ``X-Pagination-*`` headers."""
        found, total = await documents.chunks(principal, document_id, page.limit, page.offset)
        return Response(found, headers=page_headers(total, page.offset, len(found)))

    @get("/{document_id:str}/content", opt=READS, summary="What was uploaded", media_type="application/octet-stream")
    async def content(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Stream:
        """Byte for byte."""
        download = await documents.content(principal, document_id)
        document = download.document
        name = document.filename or str(document.document_id)
        headers = {
            "Content-Type": document.content_type,  # the route's own would win over the response's
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Content-Length": str(document.size),
        }
        return Stream(_whole(download.parts), headers=headers)

    @get("/{document_id:str}/text", opt=READS, summary="The text of a document", media_type="text/plain")
    async def text(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> Stream:
        """That in which offsets count characters. 409 until it is taken out of the document."""
        download = await documents.text(principal, document_id)
        return Stream(_whole(download.parts), media_type="text/plain; charset=utf-8")

    @delete("/{document_id:str}", summary="Delete a document")
    async def delete_one(self, document_id: Id, principal: CurrentPrincipal, documents: Service) -> None:
        """With its chunks, at once for every reader; its ingestion is stopped."""
        await documents.delete(principal, document_id)


async def _whole(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part
