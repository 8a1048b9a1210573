"""The in-memory feed: every subscriber gets all frames at its own pace."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Raw

from app.domain.event_id import START, EventId
from app.domain.events import InputApplied, Interrupted, StepCommitted
from app.engine.streams.feed import MAX_BYTES, Feed, FeedTruncated, Frame


def frame(text: str, mode: str = "values") -> Frame:
    return Frame(mode, text.encode())


async def read(feed: Feed, after: EventId, modes: set[str] | None = None) -> AsyncIterator[tuple[EventId, bytes]]:
    """Read as a subscriber does: take what is buffered, wait for more, until the feed closes."""
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


async def test_early_and_late_subscribers_get_the_same_frames() -> None:
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


def test_values_at_a_checkpoint_are_without_the_questions_of_an_interrupt() -> None:
    feed = Feed()
    feed.open(1)
    asked = Interrupted(checkpoint_id="c", interrupts=Raw(b"[]"))
    feed.push([frame("input"), frame("asks")], [[InputApplied("b", read=False)], [asked]])
    assert feed.values_frame("c") is feed.values_frame("b") is None
    feed.push([frame("input"), frame("asks")], [[InputApplied("c")], [asked]])
    assert feed.values_frame("c") == frame("input")
    feed.push(
        [frame("updates", "updates"), frame("step"), frame("asks")], [[StepCommitted(1, "d", Raw(b"{}"))], [], []]
    )
    assert feed.values_frame("d") == frame("step")


async def test_buffered_frames_come_as_one_chunk() -> None:
    feed = Feed()
    feed.open(1)
    feed.push([frame("a")])
    feed.push([frame("b")])
    feed.close(finished=True)
    assert [chunk async for chunk in read(feed, START)] == [(EventId(1, 2), b"ab")]


async def test_a_subscriber_resumes_after_the_frame_it_names() -> None:
    feed = Feed()
    feed.open(3)
    feed.push([frame("a"), frame("b"), frame("c")])
    feed.close(finished=True)
    assert await collect(feed, EventId(3, 1)) == b"bc"
    assert await collect(feed, EventId(3, 3)) == b""
    assert await collect(feed, EventId(2, 7)) == b"abc"


async def test_a_subscriber_gets_its_modes_and_frames_for_all() -> None:
    feed = Feed()
    feed.open(1)
    feed.push([frame("meta", ""), frame("v", "values"), frame("u", "updates")])
    feed.close(finished=True)
    assert await collect(feed, modes={"updates"}) == b"metau"


async def test_only_stored_frames_are_evicted_and_a_slow_subscriber_gets_an_error() -> None:
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
