"""How answers on OpenAI's wires end: OpenAI's own client, with its default retries, runs the agent once."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import openai
import pytest
from openai.types.responses import ResponseErrorEvent

from app.domain.events import Ended, Failed, RunStarted
from app.protocols.openai.chat import ChatCollector, ChatProjection
from app.protocols.openai.responses.projection import ResponseCollector, stopping_after
from tests.database import age, clone, drop, execute
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.wires import OPENAI, Say, events
from tests.system.services import serving

AGENTS = """
[agents.plain]
model = "openai:tiny-chat"

[agents.thrifty]
model = "openai:tiny-chat"
tools = ["clock"]
limits = { tokens = 1 }
"""
HELLO: Any = [{"role": "user", "content": "hello"}]


class Live(NamedTuple):
    """A server, its provider, its database, and OpenAI's client with its default retries."""

    server: Served
    provider: FakeProvider
    database: str
    client: openai.AsyncOpenAI


@pytest.fixture
async def live(server_url: str, tmp_path: Path) -> AsyncIterator[Live]:
    (tmp_path / "agents.toml").write_text(AGENTS)
    url = await clone(server_url)
    async with FakeProvider() as provider:
        settings = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{provider.url}/v1"}
        server = Served(url, tmp_path, AGENT_CONFIG=str(tmp_path / "agents.toml"), **settings)
        try:
            await asyncio.to_thread(server.wait_until_ready)
            async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client:
                yield Live(server, provider, url, client)
        finally:
            await asyncio.to_thread(server.stop)
    await drop(server_url, url)


async def runs_of(live: Live, chat: str) -> int:
    """Return the number of runs of a chat, whose id is a thread's."""
    async with httpx.AsyncClient(base_url=live.server.base) as http:
        return len((await http.get(f"/threads/{chat}/runs")).json())


async def test_a_run_that_fails_is_not_repeated_and_says_whose_fault_it_is(live: Live) -> None:
    create = live.client.chat.completions.create
    for fault, error in ((Fault.BAD_REQUEST, openai.BadRequestError), (Fault.UNAUTHORIZED, openai.InternalServerError)):
        chat = str(uuid.uuid4())
        live.provider.plan(fault)
        with pytest.raises(error):
            await create(model="plain", messages=HELLO, extra_headers={"X-Chat-Id": chat})
        assert await runs_of(live, chat) == 1, fault
    spoken = b"".join(events(OPENAI, Say(text="Hello th")))
    for reason in ("length", "content_filter"):
        cut = Replay(data=spoken.replace(b'"stop"', b'"%b"' % reason.encode()))
        live.provider.plan(cut, cut)
        whole = await create(model="plain", messages=HELLO)
        assert (whole.choices[0].finish_reason, whole.choices[0].message.content) == (reason, "Hello th")
        chunks = [chunk async for chunk in await create(model="plain", messages=HELLO, stream=True)]
        assert chunks[-1].choices[0].finish_reason == reason
    live.provider.plan(Say(text="I look.", calls=[("clock", "{}")]))
    spent = await create(model="thrifty", messages=HELLO)
    assert (spent.choices[0].finish_reason, spent.choices[0].message.content) == ("length", "I look.")
    live.provider.plan(Fault.BAD_REQUEST)
    with pytest.raises(openai.BadRequestError):
        await live.client.post("/responses/compact", body={"model": "plain", "input": "x"}, cast_to=object)


async def test_a_repeated_completion_is_the_first_though_its_log_is_gone(live: Live) -> None:
    create = live.client.chat.completions.with_raw_response.create
    keyed: Any = {"model": "plain", "messages": HELLO, "extra_headers": {"Idempotency-Key": uuid.uuid4().hex}}
    streamed: Any = {**keyed, "extra_headers": {"Idempotency-Key": uuid.uuid4().hex}, "stream": True}
    for chat in ({}, {"X-Chat-Id": str(uuid.uuid4())}):
        for asked in (keyed, streamed):
            asked["extra_headers"] |= chat
        first, stream = await create(**keyed), await create(**streamed)
        async for _ in stream.parse():
            pass
        assert first.parse().choices[0].message.content == "Hello there"
        assert (await create(**keyed)).parse() == first.parse()
        if chat:
            for one in (first, stream):
                await age(live.database, one.headers["x-run-id"])
            await execute(live.database, "delete from events")
            assert (await create(**keyed)).parse().choices[0].message.content == "Hello there"
            with pytest.raises(openai.APIStatusError) as gone:
                await create(**streamed)
            assert gone.value.status_code == 410
    unstored: Any = {"model": "plain", "input": "hi", "store": False, "extra_headers": {"Idempotency-Key": "unstored"}}
    respond = live.client.responses.create
    assert (await respond(**unstored)).id == (await respond(**unstored)).id
    await execute(live.database, "delete from runs")
    for repeated, body in ((respond, unstored), (create, keyed)):
        with pytest.raises(openai.APIStatusError, match="was deleted") as gone:
            await repeated(**body)
        assert gone.value.status_code == 410


async def test_an_error_after_a_run_was_accepted_is_not_repeated_without_a_key(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(ChatCollector, "completion", fail)
    monkeypatch.setattr(ResponseCollector, "add", fail)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": HELLO}), ("/v1/responses", {"input": "hello"}),
    ]  # fmt: skip
    async with serving(database_url, AGENT_AUTH="none") as service:
        for path, body in asked:
            for key, again in ({}, "false"), ({"Idempotency-Key": uuid.uuid4().hex}, "true"):
                answer = await service.client.post(path, json={"model": "echo", **body}, headers=key)
                assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
                assert answer.headers["x-should-retry"] == again
                assert len(answer.headers["x-run-id"]) == 36


def test_a_stream_that_is_stopped_before_its_first_event_is_followed_from_the_first() -> None:
    for reached, after in ((-1, ""), (0, " and starting_after=0"), (7, " and starting_after=7")):
        _, data, *_ = stopping_after("resp_1", reached).split(b"\n")
        event = ResponseErrorEvent.model_validate_json(data.removeprefix(b"data: "))
        assert event.message == f"The server is stopping: retrieve the response resp_1 with stream{after}."
        assert event.sequence_number == max(reached, 0)


async def test_a_server_that_stops_names_the_run_and_the_place_to_go_on_from(live: Live) -> None:
    live.provider.plan(Fault.HANG_IN_THE_MIDDLE, Fault.HANG_IN_THE_MIDDLE)
    response = await live.client.responses.create(model="plain", input="hello", stream=True)
    seen: list[Any] = [await anext(response)]
    while seen[-1].type != "response.output_text.delta":
        seen.append(await anext(response))
    chat = await live.client.chat.completions.create(model="plain", messages=HELLO, stream=True)
    await anext(chat)
    live.server.process.terminate()
    seen.extend([event async for event in response])
    *_, last, stopped = seen
    assert (stopped.type, stopped.sequence_number) == ("error", last.sequence_number)
    assert f"starting_after={last.sequence_number}" in stopped.message
    with pytest.raises(openai.APIError, match="the run goes on: the header X-Run-Id"):
        [chunk async for chunk in chat]


def test_a_spent_budget_is_a_quota_and_other_failures_keep_their_names() -> None:
    for failure, status, code in (("BudgetSpent", 429, "insufficient_quota"), ("StepLimit", 500, "StepLimit")):
        said = (RunStarted("r", 1), Failed(failure, "No more."), Ended("r", "error"))
        collector, projection = ChatCollector("c", "m", 0), ChatProjection("c", "m", 0)
        for event in said:
            collector.add(event)
        got, body = collector.completion()
        assert (got, body["error"]["code"], body["error"]["message"]) == (status, code, "No more.")
        frames = [frame.data for event in said for frame in projection.project(event)]
        assert msgspec.json.decode(frames[-2].removeprefix(b"data: ")) == body
