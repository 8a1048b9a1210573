"""Split text into chunks, each a range of it. Pure: the next chunk depends only on the text from its start on.

An ingestion that resumes at a position therefore makes the same chunks as one that was not interrupted. A chunk ends
before a heading if there is one at the right distance, else between blocks (paragraphs, lists, code), lines, sentences
or words. The next one overlaps it by some words, except after a heading.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

MAX_CHUNK_TOKENS = 400
"""Approximate."""
OVERLAP_TOKENS = 40
BYTES_PER_TOKEN = 4
"""UTF-8 bytes that count as a token: an estimate that holds for most languages and models."""
MAX_CHUNK_BYTES = MAX_CHUNK_TOKENS * BYTES_PER_TOKEN
WINDOW = MAX_CHUNK_BYTES + 1
"""Characters that must be loaded to cut a chunk, unless the text ends before."""

HEADING, BLOCK = 0, 1
Break = tuple[int, int]
"""A position where a heading or a block begins, and which of them."""
FindBreaks = Callable[[str], Iterable[Break]]

_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_GAP = re.compile(r"(?:\r?\n|\r)[ \t]*(?:\r?\n|\r)\s*")
_LINE = re.compile(r"\r?\n|\r")
_SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]")
_WORD = re.compile(r"\s+")
_NEWLINE = re.compile(r"\r\n|\n|\r")

BYTE_ORDER_MARK = "\ufeff"


class ChunkRange(msgspec.Struct, frozen=True):
    """A chunk of a window, ``start`` to before ``end`` (equal: no chunk). The next one starts at ``after``."""

    start: int
    end: int
    after: int


def breaks_of_text(window: str) -> Iterable[Break]:
    """Find breaks of plain text and of text extracted from HTML, whose headings begin with ``#``."""
    yield from ((found.start(), HEADING) for found in _HEADING.finditer(window))
    yield from ((found.end(), BLOCK) for found in _GAP.finditer(window))


def breaks_of_markdown(window: str) -> Iterable[Break]:
    """Find breaks of Markdown (CommonMark with tables)."""
    lines = [0, *(found.end() for found in _NEWLINE.finditer(window))]
    for token in _markdown().parse(window):
        if token.map and token.level == 0 and token.nesting >= 0 and token.map[0] < len(lines):
            yield lines[token.map[0]], HEADING if token.type == "heading_open" else BLOCK


@functools.cache
def _markdown() -> Any:
    """Return a parser of blocks only, imported on first use."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 8}).enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def next_chunk(window: str, final: bool, find: FindBreaks = breaks_of_text) -> ChunkRange:
    """Return the first chunk of ``window``, which has at least ``WINDOW`` characters or is the ``final`` one."""
    lead = len(window) - len(window.lstrip().lstrip(BYTE_ORDER_MARK).lstrip())
    text = window[lead : lead + WINDOW]
    if not text:
        return ChunkRange(lead, lead, lead)
    if not final and len(text) < WINDOW:
        return ChunkRange(lead, lead, lead)  # leading space fills the window: load more first
    max_length = len(text.encode()[:MAX_CHUNK_BYTES].decode("utf-8", "ignore"))
    if max_length == len(text) and final:
        return ChunkRange(lead, lead + len(text.rstrip()), len(window))
    cut, follows = _cut(text, max_length, find)
    end = len(text[:cut].rstrip())
    return ChunkRange(lead, lead + end, lead + (cut if follows == HEADING else _overlap(text, cut)))


def _cut(text: str, max_length: int, find: FindBreaks) -> tuple[int, int]:
    """Return where a chunk of up to ``max_length`` characters ends, and what begins there."""
    minimum = max_length // 2
    breaks = [(at, kind) for at, kind in find(text) if at <= max_length]
    for kind, start in ((HEADING, max_length // 4), (BLOCK, minimum)):
        if found := [at for at, of in breaks if of == kind and at > start]:
            return max(found), kind
    for boundary in (_LINE, _SENTENCE, _WORD):
        if found := [match.end() for match in boundary.finditer(text, minimum, max_length)]:
            return found[-1], BLOCK
    return max_length, BLOCK


def _overlap(text: str, cut: int) -> int:
    """Return where the next chunk begins: some words before ``cut``, at a sentence if one begins there."""
    tail = text[:cut].encode()[-OVERLAP_TOKENS * BYTES_PER_TOKEN :].decode("utf-8", "ignore")
    first = cut - len(tail)
    for boundary in (_SENTENCE, _WORD):
        for match in boundary.finditer(text, first, cut):
            if match.end() < cut and not text[match.end() : cut].isspace():
                return match.end()
    return cut
