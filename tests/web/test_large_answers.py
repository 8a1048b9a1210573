"""Large responses are sent in slices; unread and excess ones are aborted."""

import asyncio
from typing import Any

from app.base.errors import Limited
from app.infra.http.event_streams import JsonAnswer, LateAnswer
from app.infra.http.large_answers import LargeAnswers
from app.infra.http.open_streams import LARGE, SLICE, LargeResponses
from tests.web.serving import application, fast_streams, scope

BODY = bytes(range(256)) * (2 * LARGE // 256 + 1)


async def answering(scope: Any, receive: Any, send: Any) -> None:
    length = str(len(BODY)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


async def nothing() -> Any:
    raise AssertionError


async def asked(layer: LargeAnswers, send: Any) -> None:
    request = {**scope(), "app": application(), "state": {}}
    await layer(request, nothing, send)  # type: ignore[arg-type]


async def test_a_large_answer_arrives_whole_in_slices() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    layer = LargeAnswers(answering, LargeResponses(LARGE, LARGE))
    await asked(layer, send)
    assert b"".join(message.get("body", b"") for message in sent) == BODY
    assert max(len(message.get("body", b"")) for message in sent) == SLICE
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    assert not layer.large.waiting


async def test_an_answer_that_comes_in_parts_takes_no_share() -> None:
    async def parts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9999999")]})
        for part in (b"a", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    layer = LargeAnswers(parts, LargeResponses(LARGE, LARGE))
    await layer.large.budget.acquire(None, LARGE, 1)
    await asked(layer, send)
    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]


async def test_a_response_that_is_not_read_is_aborted_and_frees_its_share() -> None:
    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    layer = LargeAnswers(answering, LargeResponses(LARGE, LARGE), stuck=0.01)
    for _ in range(2):
        await asyncio.wait_for(asked(layer, send), 10)


async def test_of_too_many_large_answers_the_last_are_refused() -> None:
    statuses: list[int] = []
    read, all_begun = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            if len(statuses) == 5:
                all_begun.set()
        elif message.get("more_body"):
            await read.wait()

    layer = LargeAnswers(answering, LargeResponses(2 * len(BODY), len(BODY)))
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(asked(layer, send))
        await asyncio.wait_for(all_begun.wait(), 10)
        read.set()
    assert sorted(statuses) == [200, 429, 429, 429, 429]


async def test_answers_that_wait_for_a_run_share_the_room_and_stop_if_they_are_not_read() -> None:
    """The room of one key is that of one answer: the next one is refused, and the first ends and frees it."""
    large = LargeResponses(2 * len(BODY), len(BODY))
    streams = fast_streams()
    streams.large = large
    begun: list[tuple[int, bool]] = []

    async def made() -> LateAnswer:
        return LateAnswer(200, BODY)

    async def asked_for_one() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                begun.append((message["status"], (b"x-should-retry", b"false") in message["headers"]))
            elif len(message.get("body", b"")) == SLICE:
                await asyncio.Event().wait()  # the client does not read

        async def receive() -> Any:
            await asyncio.Event().wait()

        answer = JsonAnswer(streams, made(), holder="key").failing_with({"X-Should-Retry": "false"})
        request: Any = {**scope(), "app": application(), "state": {}}
        try:
            await answer(request, receive, send)
        except Limited as error:
            await answer.refuse(error)

    await asyncio.wait_for(asyncio.gather(asked_for_one(), asked_for_one(), asked_for_one(), asked_for_one()), 30)
    assert (200, False) in begun
    assert (429, True) in begun
    assert large.budget.has_room("key", len(BODY))
    assert not large.waiting
