"""A document on its way into the database: part by part, so that memory stays small and no connection is held."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

import msgspec
import zstandard

from app.base.errors import Invalid
from app.base.ids import new_id
from app.db.engine import Database
from app.documents import queries
from app.documents.formats import PDF, Format, charset_of, format_of
from app.documents.queries import CONTENT, Part
from app.documents.structs import namespace_of

PART = 256 * 1024
"""Bytes of a part, before it is compressed."""
AT_ONCE = 4
"""Parts that go into one transaction."""
MAGIC = b"%PDF-"
MAGIC_WITHIN = 1024


class Incoming(Protocol):
    """A file on its way: what it is called is known when its first piece comes (``app.web.files``)."""

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
    format: Format
    charset: str | None
    size: int
    sha256: bytes
    characters: int | None


class Upload:
    """Takes in one document of a tenant; whoever gets no ``Uploaded`` of it calls ``discard``."""

    def __init__(self, database: Database, tenant_id: UUID, incoming: Incoming) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._incoming = incoming
        self._waiting = bytearray()
        self._parts: list[Part] = []
        self._number = self._start = self._size = 0
        self._hash = hashlib.sha256()
        self._begun = False
        self._format: Format | None = None
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

    def _check_size(self, of: Format) -> None:
        if of.most and self._size > of.most:
            raise queries.too_large(of.name, of.most)

    async def _take(self, of: Format, size: int) -> None:
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

    async def _flush(self, of: Format) -> None:
        parts, self._parts = self._parts, []
        async with self._database.writing(self._tenant_id) as session:
            if not self._begun:
                self._begun = True
                place = namespace_of(queries.RECEIVING, self.document_id)
                await queries.begin(session, self._tenant_id, self.document_id, place, of.content_type)
            await queries.add_parts(session, self._tenant_id, self.document_id, CONTENT, parts)
