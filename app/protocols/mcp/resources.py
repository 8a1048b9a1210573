"""Threads, documents and items of the store as resources."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from app.base.errors import Invalid, NotFound
from app.features.documents.service import DocumentService
from app.features.store.service import StoreService
from app.features.store.structs import NamespaceSearch
from app.features.threads.service import ThreadService
from app.features.threads.structs import ThreadSearch
from app.protocols.mcp.surface import Caller

SCHEME = "agent://"
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of one resource; the API streams larger ones."""

MAX_COMPLETIONS = 100

JSON, TEXT = "application/json", "text/plain"

encode = msgspec.json.Encoder().encode


class Template(NamedTuple):
    """A template of resources. ``read`` returns the text of one, by the segments of its address after the name."""

    name: str
    uri: str
    description: str
    mime: str
    read: Callable[[Caller, list[str]], Awaitable[bytes]]


class StoredResources:
    """Threads, documents and store items, each read with the caller's rights."""

    def __init__(self, threads: ThreadService, documents: DocumentService, store: StoreService) -> None:
        self._threads = threads
        self._documents = documents
        self._store = store
        self._templates = {
            template.name: template
            for template in (
                Template("threads", "{thread_id}", "A thread: its messages and other values.", JSON, self._thread),
                Template("documents", "{document_id}", "The text of a document.", TEXT, self._document),
                Template(
                    "store",
                    "{namespace}/{key}",
                    "An item of the long-term store; labels of a namespace are joined by dots.",
                    JSON,
                    self._item,
                ),
            )
        }

    def templates(self) -> list[dict[str, Any]]:
        """Return the templates."""
        return [
            {
                "uriTemplate": f"{SCHEME}{one.name}/{one.uri}",
                "name": one.name,
                "description": one.description,
                "mimeType": one.mime,
            }
            for one in self._templates.values()
        ]

    async def read(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        """Return the contents of a resource. Raises ``NotFound``, ``Invalid`` for one that is too large."""
        name, *segments = uri.removeprefix(SCHEME).split("/")
        template = self._templates.get(name) if uri.startswith(SCHEME) else None
        if template is None or len(segments) != template.uri.count("{"):
            raise NotFound(f"No resource {uri[:200]!r}: resources/templates/list names their forms.")
        text = await template.read(caller, [unquote(segment) for segment in segments])
        if len(text) > MAX_BYTES:
            raise Invalid(f"This resource has {len(text)} bytes, more than {MAX_BYTES}: read it by the API.")
        return [{"uri": uri, "mimeType": template.mime, "text": text.decode("utf-8", "replace")}]

    async def _thread(self, caller: Caller, segments: list[str]) -> bytes:
        return encode(await self._threads.get(caller.principal, _id(segments[0])))

    async def _document(self, caller: Caller, segments: list[str]) -> bytes:
        text = bytearray()
        async for part in (await self._documents.text(caller.principal, _id(segments[0]))).parts:
            text += part
            if len(text) > MAX_BYTES:
                break
        return bytes(text)

    async def _item(self, caller: Caller, segments: list[str]) -> bytes:
        namespace, key = segments
        item = await self._store.get(caller.principal, namespace.split("."), key, None)
        if item is None:
            raise NotFound(f"No item {key[:100]!r} in that namespace.")
        return encode(item)

    async def complete(self, caller: Caller, template: str, argument: str, typed: str) -> list[str]:
        """Return values of an argument of a template that begin with what is typed, the newest first."""
        found: list[str] = []
        if argument == "thread_id":
            wanted = ThreadSearch(limit=MAX_COMPLETIONS, sort_by="updated_at", sort_order="desc", select=["thread_id"])
            threads, _ = await self._threads.search(caller.principal, wanted)
            found = [str(thread.thread_id) for thread in threads]
        elif argument == "document_id":
            documents, _ = await self._documents.page(caller.principal, None, None, MAX_COMPLETIONS, 0)
            found = [str(document.document_id) for document in documents]
        elif argument == "namespace" and template.startswith(f"{SCHEME}store"):
            namespaces = await self._store.namespaces(caller.principal, NamespaceSearch(limit=MAX_COMPLETIONS))
            found = [quote(".".join(labels), safe="") for labels in namespaces]
        return [value for value in found if value.startswith(typed)]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"No resource with the id {text[:100]!r}.") from error
