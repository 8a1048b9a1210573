"""Receive an upload into the database, part by part: memory is bounded and no connection is held while it arrives.

Also validates the metadata of an upload.
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
from app.features.documents.structs import DEFAULT_COLLECTION, check_collection, namespace_of
from app.infra.db.engine import Database

PART_BYTES = 256 * 1024
"""Size of a part before compression."""
PARTS_PER_COMMIT = 4
PDF_MAGIC = b"%PDF-"
PDF_MAGIC_WITHIN = 1024

MAX_TITLE_LENGTH = 500
"""Characters of a title or a file name."""

MAX_METADATA_BYTES = 16 * 1024

MAX_METADATA_NODES = 200
"""Arrays and objects, which also bounds their depth."""


class FileStream(Protocol):
    """A file being received; its name and type are known with the first piece (``app.infra.http.uploads``)."""

    filename: str
    content_type: str
    charset: str
    fields: dict[str, str]

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content of the file."""
        ...


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """A received document. ``characters`` is None if its text has to be extracted."""

    document_id: UUID
    format: DocumentFormat
    charset: str | None
    size: int
    sha256: bytes
    characters: int | None


class Upload:
    """Receives one document of a tenant. Call ``discard`` if ``receive`` fails or the document is not accepted."""

    def __init__(self, database: Database, tenant_id: UUID, incoming: FileStream) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._incoming = incoming
        self._buffer = bytearray()
        self._parts: list[Part] = []
        self._number = self._start = self._size = 0
        self._hash = hashlib.sha256()
        self._inserted = False
        self._format: DocumentFormat | None = None
        self._has_text = False
        self.document_id = new_id()

    async def receive(self) -> Uploaded:
        """Receive the whole file. Raises ``Invalid``, ``UnsupportedType``, ``TooLarge``, and what ``pieces`` raises."""
        async for piece in self._incoming.pieces():
            if self._format is None:
                self._format = format_of(self._incoming.content_type, self._incoming.filename)
                charset_of(self._incoming.charset, self._format)
            self._size += len(piece)
            self._format.check_size(self._size)
            self._hash.update(piece)
            self._buffer += piece
            while len(self._buffer) > PART_BYTES:
                await self._add_part(self._format, PART_BYTES)
        document_format = self._format or format_of(self._incoming.content_type, self._incoming.filename)
        if not self._size:
            raise Invalid("The document is empty.", (("/file", "empty"),))
        while self._buffer:
            await self._add_part(document_format, len(self._buffer))
        if not document_format.parsed and not self._has_text:
            raise Invalid("The document holds only white space.", (("/file", "empty"),))
        await self._flush(document_format)
        return Uploaded(
            document_id=self.document_id,
            format=document_format,
            charset=charset_of(self._incoming.charset, document_format),
            size=self._size,
            sha256=self._hash.digest(),
            characters=None if document_format.parsed else self._start,
        )

    async def discard(self) -> None:
        """Delete what was received so far."""
        if self._inserted:
            async with self._database.writing(self._tenant_id) as session:
                await queries.remove(session, self._tenant_id, self.document_id)

    async def _add_part(self, document_format: DocumentFormat, size: int) -> None:
        """Take the next part from the buffer; parts of text hold whole characters."""
        if document_format is PDF and not self._number and PDF_MAGIC not in self._buffer[:PDF_MAGIC_WITHIN]:
            raise Invalid("The PDF is broken: it does not start with a PDF header.", (("/file", "broken"),))
        last = size == len(self._buffer)
        while not document_format.parsed and not last and self._buffer[size] & 0xC0 == 0x80 and size > PART_BYTES - 4:
            size -= 1
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        length = len(content) if document_format.parsed else self._characters(content)
        self._parts.append(Part(self._number, self._start, zstandard.compress(content, 1)))
        self._number += 1
        self._start += length
        await asyncio.sleep(0)
        if len(self._parts) >= PARTS_PER_COMMIT:
            await self._flush(document_format)

    def _characters(self, content: bytes) -> int:
        """Count the characters of a part of text. Raises ``Invalid`` if it is not valid text."""
        offset = self._size - len(self._buffer) - len(content)
        if (at := content.find(0)) >= 0:
            raise Invalid(
                f"The text has a NUL character (byte {offset + at}), which cannot be stored.", (("/file", "NUL"),)
            )
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            detail = f"The text is not UTF-8 (byte {offset + error.start}): send it as UTF-8."
            raise Invalid(detail, (("/file", "not UTF-8"),)) from error
        self._has_text = self._has_text or not text.isspace()
        return len(text)

    async def _flush(self, document_format: DocumentFormat) -> None:
        parts, self._parts = self._parts, []
        async with self._database.writing(self._tenant_id) as session:
            if not self._inserted:
                self._inserted = True
                namespace = namespace_of(queries.RECEIVING, self.document_id)
                await queries.begin(session, self._tenant_id, self.document_id, namespace, document_format.content_type)
            await queries.add_parts(session, self._tenant_id, self.document_id, CONTENT, parts)


class UploadMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Collection, title, file name and metadata. Without a ``title``, the one in the document is used."""

    collection: str
    title: str | None
    filename: str | None
    metadata: dict[str, Any]


def upload_metadata(fields: Mapping[str, str], filename: str) -> UploadMetadata:
    """Validate the fields of a form or a query string. Raises ``Invalid``, ``BadRequest``."""
    return UploadMetadata(
        collection=check_collection(fields.get("collection") or DEFAULT_COLLECTION),
        title=_label(fields.get("title", ""), "title"),
        filename=_label(filename.replace("\\", "/").rpartition("/")[2], "filename"),
        metadata=_metadata(fields.get("metadata", "")),
    )


def _label(value: str, field: str) -> str | None:
    label = value.strip()
    if len(label) > MAX_TITLE_LENGTH:
        raise Invalid(f"`{field}` is longer than {MAX_TITLE_LENGTH} characters.", ((f"/{field}", "too long"),))
    if any(not one.isprintable() for one in label):
        raise Invalid(f"`{field}` has a character that is not printable.", ((f"/{field}", "not printable"),))
    return label or None


def _metadata(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    if len(text) > MAX_METADATA_BYTES or text.count("[") + text.count("{") > MAX_METADATA_NODES:
        detail = (
            f"`metadata` may have at most {MAX_METADATA_BYTES} characters and {MAX_METADATA_NODES} arrays and objects."
        )
        raise Invalid(detail, (("/metadata", "too large"),))
    try:
        found = msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Invalid("`metadata` must be the text of a JSON object.", (("/metadata", "not a JSON object"),)) from error
    if b"\\u0000" in msgspec.json.encode(found):
        raise Invalid("`metadata` has a NUL character, which cannot be stored.", (("/metadata", "NUL"),))
    return found
