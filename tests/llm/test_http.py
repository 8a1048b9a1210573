"""The HTTP client: requests, rejected responses, and connection reuse."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from app.base.errors import ModelCredentials, ModelTimeout, ModelUnavailable
from app.providers.llm.adapters.http_client import HttpClient, ModelTimeouts, SizeLimits
from tests.llm.conftest import Until
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.llm.recording import HTTP_VENDORS, KEY, adapter, ask, endpoint, record_events
from tests.llm.wires import ANTHROPIC, OPENAI


async def test_a_request_asks_for_no_encoding_and_carries_its_key(provider: FakeProvider, http: HttpClient) -> None:
    await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))
    headers = provider.requests[0].headers
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Accept"] == "text/event-stream"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert "Cookie" not in headers


async def test_each_vendor_gets_its_key_in_its_own_header(provider: FakeProvider, http: HttpClient) -> None:
    await record_events(adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC)))
    headers = provider.requests[0].headers
    assert headers["x-api-key"] == KEY
    assert "Authorization" not in headers


async def test_a_server_without_a_key_gets_none(provider: FakeProvider, http: HttpClient) -> None:
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI, key="")))
    assert recording.text == "Hello there"
    assert "Authorization" not in provider.requests[0].headers


async def test_proxies_of_the_environment_are_not_used(
    provider: FakeProvider, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))
    assert recording.text == "Hello there"


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_an_answer_read_to_its_end_returns_its_connection(
    provider: FakeProvider, http: HttpClient, vendor: str
) -> None:
    model = adapter(vendor, http, endpoint(provider, vendor))
    for _ in range(5):
        assert (await record_events(model)).finished.reason == "stop"
    assert len(provider.connections) == 1


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_a_large_conversation_is_sent_whole(
    provider: FakeProvider, patient_http: HttpClient, vendor: str
) -> None:
    text = "word " * 600_000
    recording = await record_events(adapter(vendor, patient_http, endpoint(provider, vendor)), ask(text))
    assert recording.text == "Hello there"
    assert text in str(provider.requests[0].body["messages"])


async def test_an_endless_answer_hits_the_total_timeout(provider: FakeProvider) -> None:
    provider.plan(Fault.HUGE_TOTAL)
    client = HttpClient(ModelTimeouts(total=0.3), SizeLimits(total=1 << 40))
    began = asyncio.get_running_loop().time()
    recording = await record_events(adapter(OPENAI, client, endpoint(provider, OPENAI)))
    assert type(recording.error) is ModelTimeout
    assert asyncio.get_running_loop().time() - began < 10  # of an answer without an end
    await client.aclose()


async def test_time_spent_by_the_reader_does_not_count_as_a_gap(provider: FakeProvider, until: Until) -> None:
    client, time = HttpClient(ModelTimeouts(gap=0.3)), asyncio.get_running_loop().time
    texts = 0
    async with aclosing(cast("Any", adapter(OPENAI, client, endpoint(provider, OPENAI)).stream(ask()))) as events:
        async for _ in events:
            texts += 1
            began = time()
            await until(lambda: time() - began > 2 * 0.3)  # noqa: B023  awaited before the next iteration
    assert texts == 3
    await client.aclose()


async def test_a_closed_client_sends_nothing_more(provider: FakeProvider, http: HttpClient) -> None:
    await http.aclose()
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))
    assert type(recording.error) is ModelUnavailable
    assert provider.requests == []


async def test_closing_the_client_ends_its_streams_with_a_typed_error(provider: FakeProvider) -> None:
    provider.plan(Fault.HANG_IN_THE_MIDDLE)
    client = HttpClient()
    events = cast("Any", adapter(OPENAI, client, endpoint(provider, OPENAI)).stream(ask()))
    await anext(events)
    await client.aclose()
    with pytest.raises(ModelUnavailable):
        await anext(events)


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_after_a_rejected_key_the_spare_key_is_used_permanently(
    provider: FakeProvider, http: HttpClient, vendor: str
) -> None:
    provider.refused_keys = {KEY}
    model = adapter(vendor, http, endpoint(provider, vendor, spare="sk-second-8"))
    assert (await record_events(model)).text == "Hello there"
    assert len(provider.requests) == 2
    assert (await record_events(model)).text == "Hello there"
    assert len(provider.requests) == 3


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_two_rejected_keys_are_tried_once_each(provider: FakeProvider, http: HttpClient, vendor: str) -> None:
    provider.refused_keys = {KEY, "sk-second-8"}
    recording = await record_events(adapter(vendor, http, endpoint(provider, vendor, spare="sk-second-8")))
    assert type(recording.error) is ModelCredentials
    assert len(provider.requests) == 2


async def test_the_endpoint_does_not_show_its_keys(provider: FakeProvider) -> None:
    assert KEY not in repr(endpoint(provider, OPENAI, spare=KEY))
