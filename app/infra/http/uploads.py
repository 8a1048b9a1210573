"""File uploads, as the body itself or as part of a form; one chunk is in memory at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar.exceptions import HTTPException
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from app.base.errors import BadRequest, Invalid, TooLarge, UnsupportedType
from app.infra.http.query_params import AnyRequest

CHUNK_SECONDS = 10.0
"""Timeout of the next bytes of the body."""
WHOLE_SECONDS = 900.0
"""Timeout of the whole body."""
MAX_FIELD_BYTES = 64 * 1024
"""Bytes of a form's fields besides its file, and of their framing."""
MAX_PARTS = 16
FORM = "multipart/form-data"
FILE = "file"


class IncomingFile:
    """An upload in progress. ``fields`` are those of the form or the URL; complete once the file is.

    ``filename``, ``content_type`` and ``charset`` are known when its first chunk arrives.
    """

    def __init__(self, request: AnyRequest, max_bytes: int) -> None:
        """``max_bytes`` limits the file. Raises ``TooLarge``, ``UnsupportedType`` if the headers rule it out."""
        headers = request.headers
        kind, options = parse_options_header(headers.get("content-type", ""))
        self._request = request
        self._boundary = options.get("boundary", "") if kind == FORM else ""
        if kind == FORM and not self._boundary:
            raise BadRequest("The multipart form has no boundary.")
        self._max_bytes = max_bytes
        self._seen = False
        self.fields: dict[str, str] = {name: str(value) for name, value in request.query_params.items()}
        self.filename = self.fields.get("filename", "")
        self.content_type, self.charset = kind, options.get("charset", "")
        if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise UnsupportedType("Send the body without a Content-Encoding.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes + (MAX_FIELD_BYTES if self._boundary else 0):
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The file is larger than the limit of {self._max_bytes} bytes.")

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the file's chunks. Raises ``TooLarge``, ``BadRequest``, ``Invalid``, and 408 for a body that is too
        slow.
        """
        size = 0
        async for piece in self._parts() if self._boundary else self._body():
            size += len(piece)
            if size > self._max_bytes:
                raise self._too_large()
            yield piece

    async def _body(self) -> AsyncIterator[bytes]:
        deadline = time.monotonic() + WHOLE_SECONDS
        more = True
        while more:
            try:
                async with asyncio.timeout(min(CHUNK_SECONDS, max(0.0, deadline - time.monotonic()))):
                    message: Any = await self._request.receive()
            except TimeoutError:
                raise HTTPException(
                    f"No bytes of the body arrived for {CHUNK_SECONDS:g} seconds, or not all within {WHOLE_SECONDS:g}.",
                    status_code=408,
                ) from None
            if message["type"] == "http.disconnect":
                raise HTTPException("The connection was closed before the whole body arrived.", status_code=400)
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece

    async def _parts(self) -> AsyncIterator[bytes]:
        """Yield the form's part ``file``; the others become fields."""
        try:
            parser = PushMultipartParser(self._boundary, max_segment_count=MAX_PARTS)
            part: MultipartSegment | None = None
            value, field_bytes = b"", 0
            with parser:
                async for piece in self._body():
                    for event in parser.parse(piece):
                        if isinstance(event, MultipartSegment):
                            part, value = event, b""
                            if _is_file(event):
                                self._begin(event)
                        elif part is not None and _is_file(part):
                            if event is not None:
                                yield bytes(event)
                        elif event is not None:
                            value += bytes(event)
                            field_bytes += len(event)
                            if field_bytes > MAX_FIELD_BYTES:
                                raise TooLarge(f"The fields of the form are larger than {MAX_FIELD_BYTES} bytes.")
                        elif part is not None:
                            self._add_field(part.name or "", value)
        except MultipartError as error:
            raise BadRequest(f"The body is not a valid multipart form: {error}.") from error
        if not self._seen:
            raise Invalid(f"The form has no part {FILE!r}: send the document as that part.", ((f"/{FILE}", "missing"),))

    def _begin(self, part: MultipartSegment) -> None:
        if self._seen:
            raise Invalid("The form has more than one file: upload one at a time.", ((f"/{FILE}", "more than one"),))
        self._seen = True
        self.filename = part.filename or self.filename
        self.content_type, self.charset = part.content_type or "", part.charset or ""

    def _add_field(self, name: str, value: bytes) -> None:
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The field {name[:100]!r} is not UTF-8.") from error


def _is_file(part: MultipartSegment) -> bool:
    return part.filename is not None or part.name == FILE
