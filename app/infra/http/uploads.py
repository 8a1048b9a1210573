"""Files that are uploaded: as the body itself, or as a part of a form. Nothing of them is kept here but one piece."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar.exceptions import HTTPException
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from app.base.errors import BadRequest, Invalid, TooLarge, UnsupportedType
from app.infra.http.query_params import AnyRequest

SECONDS = 10.0
"""In which some of the body must arrive."""
WHOLE_SECONDS = 900.0
"""In which all of it must."""
FIELDS = 64 * 1024
"""Bytes of the fields of a form beside its file, and of what is around them."""
MAX_PARTS = 16
FORM = "multipart/form-data"
FILE = "file"


class IncomingFile:
    """A file on its way. ``fields`` are those of the form, or of the address; whole once the file is.

    ``filename``, ``content_type`` and ``charset`` are known when its first piece comes.
    """

    def __init__(self, request: AnyRequest, max_bytes: int) -> None:
        """``max_bytes``: bytes of the file. Raises ``TooLarge``, ``UnsupportedType`` for what the headers rule out."""
        headers = request.headers
        kind, options = parse_options_header(headers.get("content-type", ""))
        self._request = request
        self._boundary = options.get("boundary", "") if kind == FORM else ""
        if kind == FORM and not self._boundary:
            raise BadRequest("The multipart form names no boundary.")
        self._max_bytes = max_bytes
        self._seen = False
        self.fields: dict[str, str] = {name: str(value) for name, value in request.query_params.items()}
        self.filename = self.fields.get("filename", "")
        self.content_type, self.charset = kind, options.get("charset", "")
        if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise UnsupportedType("Send the body without a Content-Encoding.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes + (FIELDS if self._boundary else 0):
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The file is larger than the {self._max_bytes} bytes that are taken.")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file. Raises ``TooLarge``, ``BadRequest``, ``Invalid``, and 408 for a body that is too slow."""
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
                async with asyncio.timeout(min(SECONDS, max(0.0, deadline - time.monotonic()))):
                    message: Any = await self._request.receive()
            except TimeoutError:
                raise HTTPException(
                    f"Nothing of the body came for {SECONDS:g} seconds, or not all of it in {WHOLE_SECONDS:g}.",
                    status_code=408,
                ) from None
            if message["type"] == "http.disconnect":
                raise HTTPException("The connection closed before the whole body came.", status_code=400)
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece

    async def _parts(self) -> AsyncIterator[bytes]:
        """The form's part ``file``; the others become fields."""
        try:
            parser = PushMultipartParser(self._boundary, max_segment_count=MAX_PARTS)
            part: MultipartSegment | None = None
            value, around = b"", 0
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
                            around += len(event)
                            if around > FIELDS:
                                raise TooLarge(f"The fields of the form are larger than {FIELDS} bytes.")
                        elif part is not None:
                            self._keep(part.name or "", value)
        except MultipartError as error:
            raise BadRequest(f"The body is no multipart form: {error}.") from error
        if not self._seen:
            raise Invalid(f"The form has no part {FILE!r}: send the document as one.", ((f"/{FILE}", "missing"),))

    def _begin(self, part: MultipartSegment) -> None:
        if self._seen:
            raise Invalid("The form has more than one file: upload one at a time.", ((f"/{FILE}", "more than one"),))
        self._seen = True
        self.filename = part.filename or self.filename
        self.content_type, self.charset = part.content_type or "", part.charset or ""

    def _keep(self, name: str, value: bytes) -> None:
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The field {name[:100]!r} is not UTF-8.") from error


def _is_file(part: MultipartSegment) -> bool:
    return part.filename is not None or part.name == FILE
