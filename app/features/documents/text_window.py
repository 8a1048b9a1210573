"""The text of a document as a window that moves forward, loaded part by part."""

from uuid import UUID

import asyncpg
import zstandard

from app.features.documents import sql


class TextWindow:
    """The text from ``position`` on. Parts hold whole characters, so each is decoded by itself."""

    def __init__(self, tenant_id: UUID, document_id: UUID, kind: int) -> None:
        self._parts = (tenant_id, document_id, kind)
        self._buffer = ""
        self._offset = 0
        self._number = -1
        self.final = False
        """Whether the text is loaded to its end."""
        self.position = 0

    async def seek(self, connection: asyncpg.Connection, position: int) -> None:
        """Move to ``position``, forward or back."""
        row = await connection.fetchrow(sql.PART_AT, *self._parts, position)
        self.position, self._buffer, self._offset, self.final = position, "", 0, row is None
        if row is not None:
            self._buffer = _decode(row)
            self._offset = position - row["start"]
            self._number = row["number"]

    async def load(self, connection: asyncpg.Connection, length: int) -> None:
        """Load parts until ``length`` characters are in the window, or the text ends."""
        while not self.is_loaded(length):
            row = await connection.fetchrow(sql.PART, *self._parts, self._number + 1)
            self.final = row is None
            if row is not None:
                self._buffer = self._buffer[self._offset :] + _decode(row)
                self._offset = 0
                self._number = row["number"]

    def is_loaded(self, length: int) -> bool:
        """Whether ``length`` characters, or all that are left, are in the window."""
        return self.final or len(self._buffer) - self._offset >= length

    def peek(self, length: int) -> tuple[str, bool]:
        """Return up to ``length`` characters, and whether the text ends with them."""
        end = self._offset + length
        return self._buffer[self._offset : end], self.final and len(self._buffer) <= end

    def advance(self, length: int) -> None:
        """Move forward by ``length`` characters."""
        self._offset += length
        self.position += length

    @property
    def exhausted(self) -> bool:
        """Whether no text is left."""
        return self.final and self._offset >= len(self._buffer)


def _decode(row: asyncpg.Record) -> str:
    return zstandard.decompress(row["content"]).decode()
