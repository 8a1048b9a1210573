"""A document on its way into the database: part by part, so that memory stays small and no connection is held.

What an upload says of its document, beside the document. Pure.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol
from uuid import UUID

import msgspec
import zstandard

from app.base.errors import Invalid
from app.base.ids import new_id
from app.features.documents import queries
from app.features.documents.formats import PDF, DocumentFormat, charset_of, format_of
from app.features.documents.queries import CONTENT, Part
from app.features.documents.structs import DEFAULT, check_collection, namespace_of
from app.infra.db.engine import Database

PART = 256 * 1024
"""Bytes of a part, before it is compressed."""
AT_ONCE = 4
"""Parts that go into one transaction."""
MAGIC = b"%PDF-"
MAGIC_WITHIN = 1024


class FileStream(Protocol):
    """A file on its way: what it is called is known when its first piece comes (``app.infra.http.uploads``)."""

    filename: str
    content_type: str
    charset: str
    fields: dict[str, str]

    def pieces(self) -> AsyncIterator[bytes]:
        """The file."""
        ...


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """What has arrived. ``characters`` of a text; None where the text must be taken out of it first."""

    document_id: UUID
    format: DocumentFormat
    charset: str | None
    size: int
    sha256: bytes
    characters: int | None


class Upload:
    """Takes in one document of a tenant; whoever gets no ``Uploaded`` of it calls ``discard``."""

    def __init__(self, database: Database, tenant_id: UUID, incoming: FileStream) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._incoming = incoming
        self._waiting = bytearray()
        self._parts: list[Part] = []
        self._number = self._start = self._size = 0
        self._hash = hashlib.sha256()
        self._begun = False
        self._format: DocumentFormat | None = None
        self.document_id = new_id()

    async def receive(self) -> Uploaded:
        """All of it. Raises ``Invalid`` for what cannot be read, ``UnsupportedType``, and what ``pieces`` raises."""
        async for piece in self._incoming.pieces():
            if self._format is None:
                self._format = format_of(self._incoming.content_type, self._incoming.filename)
                charset_of(self._incoming.charset, self._format)
            self._size += len(piece)
            self._check_size(self._format)
            self._hash.update(piece)
            self._waiting += piece
            while len(self._waiting) > PART:
                await self._take(self._format, PART)
        of = self._format or format_of(self._incoming.content_type, self._incoming.filename)
        if not self._size:
            raise Invalid("The document is empty.", (("/file", "empty"),))
        while self._waiting:
            await self._take(of, len(self._waiting))
        if not of.parsed and not self._some:
            raise Invalid("The document holds nothing but space.", (("/file", "empty"),))
        await self._flush(of)
        return Uploaded(
            document_id=self.document_id,
            format=of,
            charset=charset_of(self._incoming.charset, of),
            size=self._size,
            sha256=self._hash.digest(),
            characters=None if of.parsed else self._start,
        )

    async def discard(self) -> None:
        """Remove what has come so far."""
        if self._begun:
            async with self._database.writing(self._tenant_id) as session:
                await queries.remove(session, self._tenant_id, self.document_id)

    _some = False

    def _check_size(self, of: DocumentFormat) -> None:
        if of.max_bytes and self._size > of.max_bytes:
            raise queries.too_large(of.name, of.max_bytes)

    async def _take(self, of: DocumentFormat, size: int) -> None:
        """The next part out of what waits: of text, whole characters."""
        if of is PDF and not self._number and MAGIC not in self._waiting[:MAGIC_WITHIN]:
            raise Invalid("The PDF is broken: it does not begin like one.", (("/file", "broken"),))
        last = size == len(self._waiting)
        while not of.parsed and not last and self._waiting[size] & 0xC0 == 0x80 and size > PART - 4:
            size -= 1
        content = bytes(self._waiting[:size])
        del self._waiting[:size]
        length = len(content) if of.parsed else self._characters(content)
        self._parts.append(Part(self._number, self._start, zstandard.compress(content, 1)))
        self._number += 1
        self._start += length
        await asyncio.sleep(0)
        if len(self._parts) >= AT_ONCE:
            await self._flush(of)

    def _characters(self, content: bytes) -> int:
        """How many characters a part of a text has. Raises ``Invalid`` for what is none."""
        before = self._size - len(self._waiting) - len(content)
        if (at := content.find(0)) >= 0:
            raise Invalid(f"The text has a NUL (byte {before + at}), which cannot be stored.", (("/file", "NUL"),))
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            detail = f"The text is not UTF-8 (byte {before + error.start}): send it as UTF-8."
            raise Invalid(detail, (("/file", "not UTF-8"),)) from error
        self._some = self._some or not text.isspace()
        return len(text)

    async def _flush(self, of: DocumentFormat) -> None:
        parts, self._parts = self._parts, []
        async with self._database.writing(self._tenant_id) as session:
            if not self._begun:
                self._begun = True
                place = namespace_of(queries.RECEIVING, self.document_id)
                await queries.begin(session, self._tenant_id, self.document_id, place, of.content_type)
            await queries.add_parts(session, self._tenant_id, self.document_id, CONTENT, parts)


MAX_TITLE_LENGTH = 500
"""Characters of a title, and of a file's name."""
MAX_METADATA_BYTES = 16 * 1024
"""Bytes of the metadata."""
MAX_METADATA_NODES = 200
"""Arrays and objects in it, which also bounds how deep they nest."""


class UploadMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where a document goes, and what it is called. Without a ``title`` it has the one that it names itself."""

    collection: str
    title: str | None
    filename: str | None
    metadata: dict[str, Any]


def upload_metadata(fields: Mapping[str, str], filename: str) -> UploadMetadata:
    """The fields of a form, or of an address. Raises ``Invalid``, ``BadRequest``."""
    return UploadMetadata(
        collection=check_collection(fields.get("collection") or DEFAULT),
        title=_words(fields.get("title", ""), "title"),
        filename=_words(filename.replace("\\", "/").rpartition("/")[2], "filename"),
        metadata=_metadata(fields.get("metadata", "")),
    )


def _words(given: str, field: str) -> str | None:
    words = given.strip()
    if len(words) > MAX_TITLE_LENGTH:
        raise Invalid(f"`{field}` is longer than {MAX_TITLE_LENGTH} characters.", ((f"/{field}", "too long"),))
    if any(not one.isprintable() for one in words):
        raise Invalid(f"`{field}` has a character that cannot be shown.", ((f"/{field}", "not printable"),))
    return words or None


def _metadata(given: str) -> dict[str, Any]:
    if not given.strip():
        return {}
    if len(given) > MAX_METADATA_BYTES or given.count("[") + given.count("{") > MAX_METADATA_NODES:
        detail = f"`metadata` has up to {MAX_METADATA_BYTES} characters, and {MAX_METADATA_NODES} arrays and objects."
        raise Invalid(detail, (("/metadata", "too large"),))
    try:
        found = msgspec.json.decode(given.encode(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Invalid("`metadata` must be the text of a JSON object.", (("/metadata", "no JSON object"),)) from error
    if b"\\u0000" in msgspec.json.encode(found):
        raise Invalid("`metadata` has a NUL, which cannot be stored.", (("/metadata", "NUL"),))
    return found
