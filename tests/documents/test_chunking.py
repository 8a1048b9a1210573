"""Chunks are ranges of their text: exact, bounded, complete, and the same from wherever chunking resumes."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from app.features.documents.chunking import (
    MAX_CHUNK_BYTES,
    WINDOW,
    ChunkRange,
    FindBreaks,
    breaks_of_markdown,
    breaks_of_text,
    next_chunk,
)
from tests.documents.samples import BOOK, MARKDOWN

LOOKAHEAD = 8 * WINDOW

WORDS = st.sampled_from(
    [
        "word",
        "a",
        "sentence.",
        "Why?",
        "\n",
        "\n\n",
        "# Title\n",
        "- item\n",
        "```\ncode\n```\n",
        "漢字。",
        "é",
        " ",
        "\t",
        "x" * 900,
    ]
)
TEXTS = st.lists(WORDS, max_size=400).map(" ".join)


def cut(text: str, find: FindBreaks = breaks_of_text, start: int = 0) -> list[tuple[int, ChunkRange]]:
    """Return (start of the window, chunk) until the end of the text."""
    found = []
    while start < len(text):
        window = text[start : start + LOOKAHEAD]
        piece = next_chunk(window, start + LOOKAHEAD >= len(text), find)
        assert piece.after > 0
        found.append((start, piece))
        start += piece.after
    return found


def ranges(text: str, find: FindBreaks = breaks_of_text, start: int = 0) -> list[tuple[int, int]]:
    pieces = cut(text, find, start)
    return [(at + piece.start, at + piece.end) for at, piece in pieces if piece.end > piece.start]


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(text=TEXTS | st.text(max_size=3000), find=st.sampled_from([breaks_of_text, breaks_of_markdown]))
def test_every_visible_character_is_in_a_chunk_of_bounded_size(text: str, find: FindBreaks) -> None:
    reached = 0
    for start, end in ranges(text, find):
        assert not text[reached:start].strip().strip("\ufeff")
        assert end > reached
        assert len(text[start:end].encode("utf-8", "surrogatepass")) <= MAX_CHUNK_BYTES
        assert text[start:end].strip()
        reached = end
    assert not text[reached:].strip().strip("\ufeff")


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(text=TEXTS)
def test_chunking_resumes_with_the_same_chunks(text: str) -> None:
    whole = cut(text)
    for number, (start, _) in enumerate(whole):
        assert cut(text, start=start) == whole[number:]


def test_a_chunk_ends_before_a_heading_without_overlap() -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + "Some words of it. " * 50 for n in range(6))
    found = ranges(text, breaks_of_markdown)
    assert [text[start : start + 8] for start, _ in found] == [f"# Part {n}" for n in range(6)]


def test_a_block_of_code_that_fits_is_not_split() -> None:
    code = "```python\n" + "\n\n".join(f"# not a heading {n}\nprint({n})" for n in range(20)) + "\n```"
    text = "Some words before. " * 60 + "\n\n" + code + "\n\n" + "Some words after. " * 60
    found = [text[start:end] for start, end in ranges(text, breaks_of_markdown)]
    assert sum(code in one for one in found) >= 1


def test_chunks_overlap_by_some_words_and_start_with_a_sentence() -> None:
    text = BOOK.decode()
    found = ranges(text)
    overlaps = [before[1] - after[0] for before, after in itertools.pairwise(found)]
    assert max(overlaps) > 20
    assert max(overlaps) <= 160
    assert all(text[start : start + 8] in {"Sentence", "Chapter "} or text[start - 1].isspace() for start, _ in found)


def test_a_small_document_is_one_chunk() -> None:
    text = MARKDOWN.decode()
    assert ranges(text, breaks_of_markdown) == [(0, len(text.rstrip()))]
