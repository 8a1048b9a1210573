"""A run's frames in memory: every reader sees all of them, each at its own pace."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.domain.event_id import START, EventId
from app.engine.streams.feed import MAX_BYTES, Feed, FeedTruncated, Frame


def frame(text: str, mode: str = "values") -> Frame:
    return Frame(mode, text.encode())


async def read(feed: Feed, after: EventId, modes: set[str] | None = None) -> AsyncIterator[tuple[EventId, bytes]]:
    """What a reader does: takes what there is, waits for more, until the feed closes."""
    while True:
        if (fresh := feed.take(after, modes)) is not None:
            after = fresh[0]
            yield fresh
        elif feed.closed:
            return
        else:
            await feed.changed()


async def collect(feed: Feed, after: EventId = START, modes: set[str] | None = None) -> bytes:
    return b"".join([chunk async for _, chunk in read(feed, after, modes)])


async def test_readers_that_come_early_and_late_see_the_same() -> None:
    feed = Feed()
    early = asyncio.ensure_future(collect(feed))
    await asyncio.sleep(0)
    feed.open(1)
    feed.push([frame("a"), frame("b")])
    await asyncio.sleep(0)
    feed.push([frame("c")])
    late = asyncio.ensure_future(collect(feed))
    await asyncio.sleep(0)
    feed.close(finished=True)
    assert await early == await late == b"abc"


async def test_frames_that_are_there_come_as_one_chunk() -> None:
    feed = Feed()
    feed.open(1)
    feed.push([frame("a")])
    feed.push([frame("b")])
    feed.close(finished=True)
    assert [chunk async for chunk in read(feed, START)] == [(EventId(1, 2), b"ab")]


async def test_a_reader_resumes_right_after_the_frame_it_names() -> None:
    feed = Feed()
    feed.open(3)
    feed.push([frame("a"), frame("b"), frame("c")])
    feed.close(finished=True)
    assert await collect(feed, EventId(3, 1)) == b"bc"
    assert await collect(feed, EventId(3, 3)) == b""
    assert await collect(feed, EventId(2, 7)) == b"abc"


async def test_a_reader_gets_the_modes_it_asked_for_and_what_is_for_everybody() -> None:
    feed = Feed()
    feed.open(1)
    feed.push([frame("meta", ""), frame("v", "values"), frame("u", "updates")])
    feed.close(finished=True)
    assert await collect(feed, modes={"updates"}) == b"metau"


async def test_only_stored_frames_are_forgotten_and_a_reader_behind_them_is_told() -> None:
    feed = Feed()
    feed.open(1)
    big = "x" * (MAX_BYTES // 4)
    feed.push([frame(big) for _ in range(6)])
    assert len(await collect_open(feed)) == len(big)  # a large frame is a chunk by itself
    feed.stored(6)
    feed.push([frame("last")])
    with pytest.raises(FeedTruncated):
        await anext(read(feed, START))
    assert await anext(read(feed, EventId(1, 6))) == (EventId(1, 7), b"last")


async def collect_open(feed: Feed) -> bytes:
    return (await anext(read(feed, START)))[1]
