"""The text of a document as a window that moves forward, loaded part by part."""

from uuid import UUID

import asyncpg
import zstandard

_FROM = """
select number, start, content from document_parts
where tenant_id = $1 and document_id = $2 and kind = $3 and start <= $4 order by start desc, number desc limit 1
"""
_NEXT = """
select number, start, content from document_parts
where tenant_id = $1 and document_id = $2 and kind = $3 and number = $4
"""


class TextWindow:
    """The text from ``position`` on. Parts hold whole characters, so each is decoded by itself."""

    def __init__(self, tenant_id: UUID, document_id: UUID, kind: int) -> None:
        self._which = (tenant_id, document_id, kind)
        self._buffer = ""
        self._at = 0
        self._number = -1
        self.final = False
        """Whether the rest of the text is in sight."""
        self.position = 0

    async def go_to(self, connection: asyncpg.Connection, position: int) -> None:
        """Begin at ``position``."""
        row = await connection.fetchrow(_FROM, *self._which, position)
        self.position, self._buffer, self._at, self.final = position, "", 0, row is None
        if row is not None:
            self._buffer = _decoded(row)
            self._at = position - row["start"]
            self._number = row["number"]

    async def see(self, connection: asyncpg.Connection, length: int) -> None:
        """Have ``length`` characters in sight, or all that are left."""
        while not self.final and len(self._buffer) - self._at < length:
            row = await connection.fetchrow(_NEXT, *self._which, self._number + 1)
            self.final = row is None
            if row is not None:
                self._buffer = self._buffer[self._at :] + _decoded(row)
                self._at = 0
                self._number = row["number"]

    def sees(self, length: int) -> bool:
        """Whether that is so without looking further."""
        return self.final or len(self._buffer) - self._at >= length

    def window(self, length: int) -> tuple[str, bool]:
        """Up to ``length`` characters, and whether the text ends with them."""
        end = self._at + length
        return self._buffer[self._at : end], self.final and len(self._buffer) <= end

    def move(self, length: int) -> None:
        """Go on by ``length`` characters."""
        self._at += length
        self.position += length

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.final and self._at >= len(self._buffer)


def _decoded(row: asyncpg.Record) -> str:
    return zstandard.decompress(row["content"]).decode()
