"""Text → chunks, each a range of it. Pure: what comes next depends on the text from there on, and on nothing else.

So an ingestion that begins again at the place it had reached makes the very chunks it would have made. A chunk ends
where the text does: before a heading if there is one at the right distance, else between blocks (paragraphs, lists,
code), lines, sentences, words. The next one begins with the last words of the one before, but for behind a heading.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

TOKENS = 400
"""What a chunk has at the most, roughly."""
OVERLAP = 40
"""Tokens that a chunk repeats of the one before."""
BYTES = 4
"""UTF-8 bytes that count as a token: near enough for what models make of most languages."""
MAX_CHUNK_BYTES = TOKENS * BYTES
WINDOW = MAX_CHUNK_BYTES + 1
"""Characters that must be in sight, unless the text ends before."""

HEADING, BLOCK = 0, 1
Break = tuple[int, int]
"""Where something begins, and what."""
FindBreaks = Callable[[str], Iterable[Break]]

_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_GAP = re.compile(r"(?:\r?\n|\r)[ \t]*(?:\r?\n|\r)\s*")
_LINE = re.compile(r"\r?\n|\r")
_SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]")
_WORD = re.compile(r"\s+")
_NEWLINE = re.compile(r"\r\n|\n|\r")

MARK = "\ufeff"
"""The mark that some programs put before UTF-8 text: it is no part of what a person reads."""


class ChunkRange(msgspec.Struct, frozen=True):
    """A chunk of a window, from ``start`` to before ``end``; none if they are equal. The next begins at ``after``."""

    start: int
    end: int
    after: int


def breaks_of_text(window: str) -> Iterable[Break]:
    """Of plain text, and of what was taken out of HTML, whose headings begin with ``#``."""
    yield from ((found.start(), HEADING) for found in _HEADING.finditer(window))
    yield from ((found.end(), BLOCK) for found in _GAP.finditer(window))


def breaks_of_markdown(window: str) -> Iterable[Break]:
    """Of Markdown (CommonMark with tables)."""
    lines = [0, *(found.end() for found in _NEWLINE.finditer(window))]
    for token in _markdown().parse(window):
        if token.map and token.level == 0 and token.nesting >= 0 and token.map[0] < len(lines):
            yield lines[token.map[0]], HEADING if token.type == "heading_open" else BLOCK


@functools.cache
def _markdown() -> Any:
    """A parser that looks at blocks alone. It is loaded with the first Markdown that comes."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 8}).enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def next_piece(window: str, final: bool, find: FindBreaks = breaks_of_text) -> ChunkRange:
    """The first chunk of ``window``, which has ``WINDOW`` characters or, when it is ``final``, ends the text."""
    lead = len(window) - len(window.lstrip().lstrip(MARK).lstrip())
    seen = window[lead : lead + WINDOW]
    if not seen:
        return ChunkRange(lead, lead, lead)
    if not final and len(seen) < WINDOW:
        return ChunkRange(lead, lead, lead)  # behind so much space the rest must come into sight first
    max_bytes = len(seen.encode()[:MAX_CHUNK_BYTES].decode("utf-8", "ignore"))
    if max_bytes == len(seen) and final:
        return ChunkRange(lead, lead + len(seen.rstrip()), len(window))
    cut, behind = _cut(seen, max_bytes, find)
    end = len(seen[:cut].rstrip())
    return ChunkRange(lead, lead + end, lead + (cut if behind == HEADING else _overlap(seen, cut)))


def _cut(seen: str, max_bytes: int, find: FindBreaks) -> tuple[int, int]:
    """Where a chunk of ``seen`` of up to ``max_bytes`` characters ends, and what begins there."""
    least = max_bytes // 2
    breaks = [(at, kind) for at, kind in find(seen) if at <= max_bytes]
    for kind, from_here in ((HEADING, max_bytes // 4), (BLOCK, least)):
        if found := [at for at, of in breaks if of == kind and at > from_here]:
            return max(found), kind
    for way in (_LINE, _SENTENCE, _WORD):
        if found := [match.end() for match in way.finditer(seen, least, max_bytes)]:
            return found[-1], BLOCK
    return max_bytes, BLOCK


def _overlap(seen: str, cut: int) -> int:
    """Where the next chunk begins: some words before ``cut``, with a sentence if one begins there."""
    tail = seen[:cut].encode()[-OVERLAP * BYTES :].decode("utf-8", "ignore")
    first = cut - len(tail)
    for way in (_SENTENCE, _WORD):
        for match in way.finditer(seen, first, cut):
            if match.end() < cut and not seen[match.end() : cut].isspace():
                return match.end()
    return cut
