"""Validate untrusted JSON text in one linear scan before it is parsed.

A parser recurses, allocates without bound and blocks the event loop; PostgreSQL stores neither NUL nor lone surrogates.
So characters, escapes, depth and the number of values are checked first, on slices of ``SLICE`` bytes with a few C
calls each, yielding to other tasks between slices.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec

from app.base.errors import BadRequest, Invalid

INVALID_JSON = "Invalid JSON in request body"
MAX_DEPTH = 64
"""Nesting levels of arrays and objects."""
MAX_MEMBERS = 100_000
"""Arrays, objects and object members in one text: about 50 ms of parsing."""
MAX_VALUES = 500_000
"""Values in one text, including numbers and strings in arrays."""
MAX_ESCAPES = 2_000_000
"""Backslashes in one text: each escape costs a parser and an encoder ten times a plain character."""
MAX_NOT_ASCII = 16 * 1024 * 1024
"""Bytes, counted in whole slices, of non-ASCII text, which is parsed and encoded character by character."""
SLICE = 1 << 18
"""Bytes scanned before other tasks run."""

UNREADABLE_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What the parser raises for a text that nothing has scanned: also for one that is nested too deeply."""

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},:'))
_AS_STEPS = bytes.maketrans(b"[]{}", b"\1\0\1\0")
_UP = b"\1"
_STEPS = (-1, 1)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_STORABLE = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?!0000|[dD][89a-fA-F])(?=....)|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)++", re.DOTALL
)
"""Storable text. Looks four bytes ahead, so that it stops before an escape cut by a slice boundary."""


def check(text: bytes | bytearray, subject: str = "The body") -> None:
    """Reject bytes that are not storable JSON or too expensive to parse; ``subject`` begins the error sentences.

    Raises ``BadRequest``, or ``Invalid`` for unbalanced brackets. Cost: 1 µs for a small text, 2 to 6 ms per MB.
    """
    for _ in scan(text, subject):
        pass


def scan(text: bytes | bytearray, subject: str = "The body") -> Iterator[None]:
    """Run ``check`` slice by slice, yielding wherever other tasks may run."""
    if len(text) <= SLICE:
        if not text.isascii():
            yield from _check_characters(text, subject)
        if b"\x00" in text:
            raise BadRequest(f"{subject} has a NUL byte, which cannot be stored.")
    else:
        yield from _check_characters(text, subject)
    if b"\\" in text:
        yield from _check_escapes(text, subject)
    if len(text) > SLICE or text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        yield from _check_structure(text, subject)


def parse(text: str, subject: str, kind: Any = Any) -> Any:
    """Parse a text inside of another one, which the scan of that has seen as characters alone.

    Raises ``BadRequest`` as ``check`` does, and ``Invalid`` for what is no JSON of the type ``kind``.
    """
    check(text.encode(), subject)
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise Invalid(f"{subject} is not valid: {str(error)[:200]}.") from error


def _check_characters(text: bytes | bytearray, subject: str) -> Iterator[None]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    not_ascii = 0
    for at in range(0, len(text), SLICE):
        piece = text[at : at + SLICE]
        held = len(decoder.getstate()[0])  # bytes of a character cut by the previous slice
        if held or not piece.isascii():
            not_ascii += len(piece)
            try:
                decoder.decode(piece, final=at + SLICE >= len(text))
            except UnicodeDecodeError as error:
                raise BadRequest(f"{subject} is not UTF-8 (byte {at - held + error.start}).") from error
        if not_ascii > MAX_NOT_ASCII:
            raise BadRequest(f"{subject} has more than {MAX_NOT_ASCII:,} bytes of text beyond ASCII.")
        if b"\x00" in piece:
            raise BadRequest(f"{subject} has a NUL byte, which cannot be stored.")
        if at + SLICE < len(text):
            yield


def _check_escapes(text: bytes | bytearray, subject: str) -> Iterator[None]:
    """Reject too many escapes and escapes of characters that cannot be stored."""
    escapes = 0
    unicode_escapes = False
    for at in range(0, len(text), SLICE):
        piece = text[at : at + SLICE + 2]
        escapes += piece.count(b"\\", 0, SLICE)
        if escapes > MAX_ESCAPES:
            raise BadRequest(f"{subject} has more than {MAX_ESCAPES:,} escapes.")
        unicode_escapes = unicode_escapes or any(start in piece for start in (b"\\u0", b"\\ud", b"\\uD"))
        if at + SLICE < len(text):
            yield
    if unicode_escapes:
        yield from _check_unicode_escapes(text, subject)


def _check_unicode_escapes(text: bytes | bytearray, subject: str) -> Iterator[None]:
    """Reject escapes of NUL and lone surrogates, matching from the start: an escaped backslash may precede ``u``."""
    at = 0
    while (match := _STORABLE.match(text, at, at + SLICE)) is not None and match.end() > at:
        at = match.end()
        if at < len(text):
            yield
    if text.startswith(b"\\u0000", at):
        raise BadRequest(f"{subject} has the escape \\u0000, which cannot be stored.")
    if _HALF.match(text, at):
        raise BadRequest(f"{subject} has half a surrogate pair (\\ud800 to \\udfff), which is not a character.")


def _check_structure(text: bytes | bytearray, subject: str) -> Iterator[None]:
    """Check nesting depth and number of values without walking through strings.

    Each slice is reduced to quotes, brackets, commas and colons and split at the quotes: every second part is inside a
    string. (Adjacent quotes are dropped first, which changes nothing for the rest.)
    """
    inside = False
    depth = members = values = at = 0
    while at < len(text):
        piece = text[at : at + SLICE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = text[at : at + SLICE + 1]  # keep a backslash with the character it escapes
        at += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        plain = piece.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
        parts = plain.split(b'"')
        outside = b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0
        brackets = outside.translate(_AS_STEPS, b",:")
        colons = outside.count(b":")
        values += len(outside) - len(brackets) - colons
        depth = _nested(brackets, depth, subject)
        members += brackets.count(_UP) + colons
        if members > MAX_MEMBERS or values > MAX_VALUES:
            raise BadRequest(
                f"{subject} has more than {MAX_MEMBERS:,} arrays, objects and members of objects, or "
                f"{MAX_VALUES:,} values."
            )
        if at < len(text):
            yield
    if depth:
        raise _unbalanced(subject)


def _nested(brackets: bytes | bytearray, depth: int, subject: str) -> int:
    """Return the depth after ``brackets``, starting at ``depth``. Raises as ``check`` does."""
    if not brackets:
        return depth
    levels = list(accumulate(map(_STEPS.__getitem__, brackets), initial=depth))
    if max(levels) > MAX_DEPTH:
        raise BadRequest(f"{subject} nests deeper than {MAX_DEPTH} levels.")
    if min(levels) < 0:
        raise _unbalanced(subject)
    return levels[-1]


def _unbalanced(subject: str) -> Invalid:
    text = INVALID_JSON if subject == "The body" else f"{subject} is not valid JSON"
    return Invalid(f"{text}: brackets are left open or closed twice.")
