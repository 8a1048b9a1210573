"""What an upload says of its document, beside the document. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.documents.structs import DEFAULT, check_collection

LONGEST = 500
"""Characters of a title, and of a file's name."""
LARGEST = 16 * 1024
"""Bytes of the metadata."""
MOST_PARTS = 200
"""Arrays and objects in it, which also bounds how deep they nest."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """Where a document goes, and what it is called. Without a ``title`` it has the one that it names itself."""

    collection: str
    title: str | None
    filename: str | None
    metadata: dict[str, Any]


def described(fields: Mapping[str, str], filename: str) -> Described:
    """The fields of a form, or of an address. Raises ``Invalid``, ``BadRequest``."""
    return Described(
        collection=check_collection(fields.get("collection") or DEFAULT),
        title=_words(fields.get("title", ""), "title"),
        filename=_words(filename.replace("\\", "/").rpartition("/")[2], "filename"),
        metadata=_metadata(fields.get("metadata", "")),
    )


def _words(given: str, field: str) -> str | None:
    words = given.strip()
    if len(words) > LONGEST:
        raise Invalid(f"`{field}` is longer than {LONGEST} characters.", ((f"/{field}", "too long"),))
    if any(not one.isprintable() for one in words):
        raise Invalid(f"`{field}` has a character that cannot be shown.", ((f"/{field}", "not printable"),))
    return words or None


def _metadata(given: str) -> dict[str, Any]:
    if not given.strip():
        return {}
    if len(given) > LARGEST or given.count("[") + given.count("{") > MOST_PARTS:
        detail = f"`metadata` has up to {LARGEST} characters, and {MOST_PARTS} arrays and objects."
        raise Invalid(detail, (("/metadata", "too large"),))
    try:
        found = msgspec.json.decode(given.encode(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Invalid("`metadata` must be the text of a JSON object.", (("/metadata", "no JSON object"),)) from error
    if b"\\u0000" in msgspec.json.encode(found):
        raise Invalid("`metadata` has a NUL, which cannot be stored.", (("/metadata", "NUL"),))
    return found
