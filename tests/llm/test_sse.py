"""The parser of server-sent events: results do not depend on how bytes are split, and sizes are limited."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.llm.adapters.sse import LineTooLong, SseReader

STREAM = (
    b": a comment\n\n"
    b"data: one\n\n"
    b"event: word\nid: 7\nretry: 10\ndata:two\n\n"
    b"data: three\ndata:  and a half\ndata\ndata:\n\n"
    b"\n\n"
    b"data:\n\n"
    b"database: none\n\n"
    b"data: caf\xc3\xa9\n\n"
    b"data: unfinished"
)
EVENTS = [b"one", b"two", b"three\n and a half\n\n", b"caf\xc3\xa9"]


def read(data: bytes, cuts: list[int] | None = None, cap: int = 1000) -> list[bytes]:
    reader = SseReader(cap)
    places = [0, *sorted(cuts or []), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places) if end > start]
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_endings_are_supported(end: bytes) -> None:
    assert read(STREAM.replace(b"\n", end)) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, 200), max_size=40))
def test_events_do_not_depend_on_how_the_bytes_are_split(end: bytes, cuts: list[int]) -> None:
    data = STREAM.replace(b"\n", end)
    assert read(data, [cut for cut in cuts if cut < len(data)]) == EVENTS


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    assert all(read(data))


def test_an_event_comes_with_its_last_byte_and_not_later() -> None:
    reader = SseReader(100)
    assert reader.feed(b"data: x\r\n") == []
    assert reader.feed(b"\r") == [b"x"]
    assert reader.feed(b"\ndata: y\n\n") == [b"y"]


@pytest.mark.parametrize(
    "data",
    [
        b"data: " + b"x" * 101,
        b"data: " + b"x" * 101 + b"\n\n",
        b"data: xxxxxx\n" * 10,
        b"data:\n" * 30,
        b":" + b"x" * 101,
        b": comment\n" * 20,
    ],
    ids=["no end", "one line", "many lines", "empty lines", "comment", "comments"],
)
def test_nothing_above_the_limit_is_buffered(data: bytes) -> None:
    with pytest.raises(LineTooLong):
        read(data, cap=100)
    with pytest.raises(LineTooLong):
        read(data, list(range(len(data))), cap=100)


def test_the_limit_applies_to_an_event_not_to_the_stream() -> None:
    assert len(read(b"data: xxxxxx\n\n" * 1000, cap=100)) == 1000
    assert read(b": comment\n\n" * 1000, cap=100) == []
