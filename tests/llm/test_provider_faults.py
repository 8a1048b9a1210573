"""Every provider fault becomes a typed error in bounded time, without secrets."""

import asyncio
import json
import re

import aiohttp
import msgspec
import pytest

from app.base.errors import (
    ModelCredentials,
    ModelError,
    ModelProtocol,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
)
from app.infra.secrets.secret import Secret
from app.providers.llm.adapters.http_client import Endpoint, HttpClient
from tests.llm.conftest import ROOMY
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.recording import HTTP_VENDORS, KEY, PROMPT, Recording, adapter, endpoint, record_events
from tests.llm.wires import OPENAI, opening, text_event

EXPECTED: dict[Fault, tuple[type[ModelError], str]] = {
    Fault.HANG_BEFORE_HEADERS: (ModelTimeout, "did not start its answer"),
    Fault.HANG_BEFORE_FIRST_TOKEN: (ModelTimeout, "first token"),
    Fault.HANG_IN_THE_MIDDLE: (ModelTimeout, "sent no data for 0.6 s"),
    Fault.DRIP_COMMENTS: (ModelTimeout, "first token"),
    Fault.DRIP_BYTES: (ModelTimeout, "sent no data for 0.6 s"),
    Fault.DRIP_TOKENS: (ModelTimeout, "total"),
    Fault.RATE_LIMITED: (ModelRateLimited, "HTTP 429"),
    Fault.SERVER_ERROR: (ModelUnavailable, "HTTP 500"),
    Fault.OVERLOADED: (ModelUnavailable, "overloaded_error"),
    Fault.UNAUTHORIZED: (ModelCredentials, "HTTP 401"),
    Fault.BAD_REQUEST: (ModelRejected, "HTTP 400"),
    Fault.REDIRECT: (ModelRejected, "redirect"),
    Fault.CUT_BEFORE_HEADERS: (ModelUnavailable, "broke before its answer"),
    Fault.CUT: (ModelUnavailable, "broke inside its answer"),
    Fault.CUT_IN_UTF8: (ModelUnavailable, "broke inside its answer"),
    Fault.CUT_IN_ARGUMENTS: (ModelUnavailable, "broke inside its answer"),
    Fault.ENDS_EARLY: (ModelProtocol, "before it was complete"),
    Fault.BAD_JSON: (ModelProtocol, "not valid JSON"),
    Fault.BAD_UTF8: (ModelProtocol, "not valid JSON"),
    Fault.WRONG_SHAPE: (ModelProtocol, "wrong shape"),
    Fault.DEEP_JSON: (ModelProtocol, "a line above the size limit"),
    Fault.HTML: (ModelProtocol, "text/html instead of an event stream"),
    Fault.JSON_INSTEAD: (ModelProtocol, "application/json instead of an event stream"),
    Fault.ERROR_WITH_200: (ModelUnavailable, "overloaded_error"),
    Fault.ERROR_IN_STREAM: (ModelUnavailable, "overloaded_error"),
    Fault.LONG_LINE: (ModelProtocol, "a line above the size limit"),
    Fault.HUGE_TOTAL: (ModelProtocol, "an answer above the size limit"),
    Fault.GZIP: (ModelProtocol, "content encoding"),
    Fault.NO_HTTP: (ModelProtocol, "not valid HTTP"),
    Fault.NAMELESS_CALL: (ModelProtocol, "without a name"),
    Fault.MANY_CALLS: (ModelProtocol, "more than 128 tool calls"),
}
ANSWERS = {
    Fault.HANG_AFTER_THE_REASON,
    Fault.UNKNOWN_CALL,
    Fault.DUPLICATE_CALLS,
    Fault.BROKEN_ARGUMENTS,
}
"""Faults that the adapter passes on as complete answers, for the agent to handle."""

BOUND = ROOMY.total
"""Time limit of any fault, in seconds."""


async def meet(provider: FakeProvider, http: HttpClient, vendor: str, fault: Fault | Replay) -> Recording:
    provider.plan(fault)
    async with asyncio.timeout(BOUND):
        return await record_events(adapter(vendor, http, endpoint(provider, vendor)))


def test_every_fault_has_its_expectation() -> None:
    assert set(EXPECTED) | ANSWERS == set(Fault)


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
@pytest.mark.parametrize("fault", EXPECTED, ids=lambda fault: fault.name)
async def test_every_fault_is_a_typed_error_in_bounded_time_without_secrets(
    provider: FakeProvider, http: HttpClient, hasty_http: HttpClient, vendor: str, fault: Fault
) -> None:
    """No key, prompt, address or bytes of the provider; one printable line."""
    kind, words = EXPECTED[fault]
    recording = await meet(provider, hasty_http if kind is ModelTimeout else http, vendor, fault)
    assert type(recording.error) is kind, recording.error
    assert isinstance(recording.error, ModelError)
    assert recording.error.vendor == vendor
    assert recording.error.__cause__ is None
    said = str(recording.error)
    assert words in said
    assert said.isprintable()
    assert len(said) <= 360
    for secret in (KEY[:8], PROMPT, provider.url, "sk-fake", "<html>", "SMTP", "xxxx"):
        assert secret not in said


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_retry_after_is_passed_on(provider: FakeProvider, http: HttpClient, vendor: str) -> None:
    recording = await meet(provider, http, vendor, Fault.RATE_LIMITED)
    assert isinstance(recording.error, ModelRateLimited)
    assert recording.error.retry_after == pytest.approx(0.01)


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_events_before_the_failure_are_delivered(
    provider: FakeProvider, http: HttpClient, hasty_http: HttpClient, vendor: str
) -> None:
    assert (await meet(provider, http, vendor, Fault.BAD_JSON)).events == []
    recording = await meet(provider, hasty_http, vendor, Fault.HANG_IN_THE_MIDDLE)
    assert recording.text == "Hello"


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_an_answer_with_a_finish_reason_is_complete_without_its_end(
    provider: FakeProvider, hasty_http: HttpClient, vendor: str
) -> None:
    recording = await meet(provider, hasty_http, vendor, Fault.HANG_AFTER_THE_REASON)
    assert recording.text == "Hello"
    assert recording.finished.reason == "stop"


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_two_calls_with_one_id_get_unique_ids(provider: FakeProvider, http: HttpClient, vendor: str) -> None:
    recording = await meet(provider, http, vendor, Fault.DUPLICATE_CALLS)
    assert recording.finished.reason == "tool_calls"
    first, second = recording.calls
    assert first[0] == "call_1"
    assert re.fullmatch("call_[0-9a-f]{32}", str(second[0]))


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_unknown_tools_and_invalid_arguments_reach_the_agent_unchanged(
    provider: FakeProvider, http: HttpClient, vendor: str
) -> None:
    assert (await meet(provider, http, vendor, Fault.UNKNOWN_CALL)).calls == [("call_1", "no_such_tool", "{}")]
    assert (await meet(provider, http, vendor, Fault.BROKEN_ARGUMENTS)).calls == [("call_1", "clock", '{"zone": ')]


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_deeply_nested_json_is_an_invalid_answer(
    provider: FakeProvider, patient_http: HttpClient, vendor: str
) -> None:
    recording = await meet(provider, patient_http, vendor, Fault.DEEP_JSON)
    assert type(recording.error) is ModelProtocol


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("overloaded_error", ModelUnavailable),
        ("api_error", ModelUnavailable),
        ("rate_limit_error", ModelRateLimited),
        ("authentication_error", ModelCredentials),
        ("invalid_request_error", ModelRejected),
        ("something_new", ModelUnavailable),
    ],
)
@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_an_error_inside_a_stream_is_classified_by_its_type(
    provider: FakeProvider, http: HttpClient, vendor: str, kind: str, expected: type[ModelError]
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()
    recording = await meet(provider, http, vendor, Replay(data=opening(vendor) + b"data: " + body + b"\n\n"))
    assert type(recording.error) is expected


async def test_an_exhausted_quota_is_an_account_error_and_not_retried(provider: FakeProvider, http: HttpClient) -> None:
    body = json.dumps({"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "Pay."}})
    recording = await meet(
        provider, http, OPENAI, Replay(data=body.encode(), status=429, content_type="application/json")
    )
    assert type(recording.error) is ModelCredentials


@pytest.mark.parametrize(
    "body",
    [
        {"error": "model not found"},
        {"error": {"message": "model not found", "code": 404}},
        {"object": "error", "message": "model not found"},
        {"detail": "model not found"},
    ],
)
async def test_the_providers_message_is_quoted_in_every_supported_shape(
    provider: FakeProvider, http: HttpClient, body: object
) -> None:
    replay = Replay(data=json.dumps(body).encode(), status=404, content_type="application/json")
    recording = await meet(provider, http, OPENAI, replay)
    assert str(recording.error) == "openai refuses the request (HTTP 404): model not found"


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"error": []}', b"\xff", b"[" * 60_000])
async def test_an_empty_error_body_leaves_the_status(provider: FakeProvider, http: HttpClient, body: bytes) -> None:
    recording = await meet(provider, http, OPENAI, Replay(data=body, status=503, content_type="application/json"))
    assert str(recording.error) == "openai cannot serve the request now (HTTP 503)"


@pytest.mark.parametrize(
    "piece", [KEY, KEY[:12], KEY[-4:], KEY[5:9], f"sk-...{KEY[-4:]}", "sk-proj-****1a", KEY[-6:].upper()]
)
async def test_no_part_of_the_key_in_a_message_or_a_code_is_shown(
    provider: FakeProvider, http: HttpClient, piece: str
) -> None:
    for status, shown in ((400, ": Incorrect key: [redacted] Try again."), (401, "")):
        body = {"error": {"message": f"Incorrect key: ({piece}). Try again.", "type": "oops", "code": f"bad_{piece}"}}
        replay = Replay(data=json.dumps(body).encode(), status=status, content_type="application/json")
        recording = await meet(provider, http, OPENAI, replay)
        assert f"(HTTP {status}, oops){shown}" in str(recording.error)
        assert KEY[-4:] not in str(recording.error)


async def test_a_refused_connection_is_unavailable(http: HttpClient) -> None:
    async with FakeProvider() as gone:
        place = endpoint(gone, OPENAI)
    recording = await record_events(adapter(OPENAI, http, place))
    assert type(recording.error) is ModelUnavailable
    assert str(recording.error) == "cannot connect to openai: connection refused"


async def test_an_unresolvable_host_is_unavailable(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_address(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", no_address)
    place = Endpoint(vendor=OPENAI, base_url="http://nowhere.invalid/v1", key=Secret(KEY))
    recording = await record_events(adapter(OPENAI, http, place))
    assert type(recording.error) is ModelUnavailable
    assert str(recording.error) == "the host name of openai does not resolve"


async def test_a_connection_that_never_opens_times_out(hasty_http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", never)
    place = Endpoint(vendor=OPENAI, base_url="http://silent.invalid/v1")
    recording = await record_events(adapter(OPENAI, hasty_http, place))
    assert type(recording.error) is ModelTimeout


async def test_a_server_without_tls_gets_no_request_for_an_https_url() -> None:
    http = HttpClient()  # loading the trusted certificate authorities takes a while
    async with FakeProvider() as plain:
        place = endpoint(plain, OPENAI)
        recording = await record_events(
            adapter(OPENAI, http, Endpoint(vendor=OPENAI, base_url=place.base_url.replace("http", "https")))
        )
        assert plain.requests == []
    await http.aclose()
    assert type(recording.error) is ModelUnavailable
    assert "TLS" in str(recording.error)


async def test_text_in_the_same_packet_as_garbage_is_delivered_first(provider: FakeProvider, http: HttpClient) -> None:
    data = opening(OPENAI) + text_event(OPENAI, "Hello") + b"data: {\n\n"
    recording = await meet(provider, http, OPENAI, Replay(data=data))
    assert recording.text == "Hello"
    assert type(recording.error) is ModelProtocol


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_a_refused_key_names_the_variable_that_holds_it(
    provider: FakeProvider, http: HttpClient, vendor: str
) -> None:
    recording = await meet(provider, http, vendor, Fault.UNAUTHORIZED)
    assert str(recording.error).endswith(f": check {vendor.upper()}_API_KEY")


@pytest.mark.parametrize("path", ["", "/v2"])
async def test_an_incomplete_base_url_is_reported(provider: FakeProvider, http: HttpClient, path: str) -> None:
    place = msgspec.structs.replace(endpoint(provider, OPENAI), base_url=provider.url + path)
    recording = await record_events(adapter(OPENAI, http, place))
    assert isinstance(recording.error, ModelRejected)
    assert "check OPENAI_BASE_URL: does it end in /v1?" in str(recording.error)
