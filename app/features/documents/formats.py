"""Document formats: content types, how each is detected, and its size limit. Pure."""

import re

import msgspec

from app.base.errors import Invalid, TooLarge, UnsupportedType

MEBIBYTE = 1024 * 1024

ACCEPTED = "text/plain, text/markdown, text/html and application/pdf"


class DocumentFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A format. ``parsed``: its text is extracted in a child process; else the document is its text.

    ``max_bytes``: a limit below that of the settings; 0: none.
    """

    content_type: str
    name: str
    endings: tuple[str, ...]
    parsed: bool
    max_bytes: int = 0

    def check_size(self, size: int) -> None:
        """Check the ``size`` of a document in bytes. Raises ``TooLarge``."""
        if self.max_bytes and size > self.max_bytes:
            raise TooLarge(f"{self.name} documents may have at most {self.max_bytes} bytes.")


TEXT = DocumentFormat(content_type="text/plain", name="text", endings=("txt", "text", "log"), parsed=False)
MARKDOWN = DocumentFormat(content_type="text/markdown", name="Markdown", endings=("md", "markdown"), parsed=False)
HTML = DocumentFormat(
    content_type="text/html", name="HTML", endings=("html", "htm"), parsed=True, max_bytes=32 * MEBIBYTE
)
PDF = DocumentFormat(content_type="application/pdf", name="PDF", endings=("pdf",), parsed=True, max_bytes=64 * MEBIBYTE)
FORMATS = {one.content_type: one for one in (TEXT, MARKDOWN, HTML, PDF)}
_ALIASES = {"text/x-markdown": MARKDOWN, "application/xhtml+xml": HTML, "application/x-pdf": PDF}
_UNSPECIFIC = {"", "application/octet-stream", "binary/octet-stream"}

UTF8 = {"", "utf-8", "utf8", "us-ascii", "ascii"}
_CHARSET = re.compile(r"[A-Za-z0-9_.:-]{1,40}")


def format_of(content_type: str, filename: str) -> DocumentFormat:
    """Return the format of a content type, or by file name if that is unspecific. Raises ``UnsupportedType``."""
    wanted = content_type.strip().lower()
    found = FORMATS.get(wanted) or _ALIASES.get(wanted)
    if found is not None:
        return found
    ending = filename.rpartition(".")[2].lower()
    for one in FORMATS.values():
        if wanted in _UNSPECIFIC and ending in one.endings:
            return one
    if wanted in _UNSPECIFIC:
        raise UnsupportedType(f"The type of the document is missing: send {ACCEPTED}.")
    raise UnsupportedType(f"{wanted[:80]!r} is not a supported type of document: send {ACCEPTED}.")


def charset_of(given: str, of: DocumentFormat) -> str | None:
    """Return the charset to store, of HTML only: text is UTF-8. Raises ``UnsupportedType``, ``Invalid``."""
    charset = given.strip().strip('"').lower()
    if charset in UTF8:
        return charset or None
    if of is HTML and _CHARSET.fullmatch(charset):
        try:
            " ".encode(charset)
        except (LookupError, UnicodeError):
            raise Invalid(f"The charset {charset!r} is not known.", (("/content_type", "unknown charset"),)) from None
        return charset
    if of is PDF:
        return None
    raise UnsupportedType(f"Text must be UTF-8, not {charset[:40]!r}: send it as UTF-8.")
