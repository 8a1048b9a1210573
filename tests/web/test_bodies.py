"""Hostile bodies get a 4xx with a sentence; good ones arrive as they were sent."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from litestar import post
from litestar.params import JSONBody

from app.base.errors import BadRequest
from app.base.json_scan import MAX_DEPTH, MAX_ESCAPES, MAX_MEMBERS, MAX_NOT_ASCII, MAX_VALUES, SLICE, check, scan
from app.infra.http import request_bodies
from app.infra.http.request_bodies import MAX_BODY_BYTES, RequestBodyMiddleware, takes_messages
from app.infra.http.request_context import RequestContextMiddleware
from app.infra.telemetry.meters import Meters
from tests.web.serving import application, scope, serving

JSON = {"content-type": "application/json"}


class Anything(msgspec.Struct):
    a: Any = None
    number: int = 0


@post("/things", status_code=200)
async def things(data: JSONBody[Anything]) -> Anything:
    return data


@post("/threads/1/runs", status_code=200)
async def runs(data: JSONBody[Anything]) -> str:
    return "ok"


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


HOSTILE = {
    "bad UTF-8": (b'{"a": "\xff\xfe"}', 400, "UTF-8"),
    "bad UTF-8 in an unknown field": (b'{"\xff": 1}', 400, "UTF-8"),
    "half a character at the end": (b'{"a": "\xc3"}', 400, "UTF-8"),
    "a surrogate as UTF-8": (b'{"a": "\xed\xa0\x80"}', 400, "UTF-8"),
    "UTF-16": ('{"a": "x"}'.encode("utf-16"), 400, "UTF-8"),
    "a NUL byte": (b'{"a": "\x00"}', 400, "NUL"),
    "a NUL escape": (b'{"a": "x\\u0000y"}', 400, "u0000"),
    "a NUL escape as a key": (b'{"\\u0000": 1}', 400, "u0000"),
    "a NUL escape after an escaped backslash": (b'{"a": "\\\\\\u0000"}', 400, "u0000"),
    "a high surrogate alone": (b'{"a": "\\ud800"}', 400, "surrogate"),
    "a low surrogate alone": (b'{"a": "\\uDFFF"}', 400, "surrogate"),
    "a high surrogate before another escape": (b'{"a": "\\uD83D\\u0041"}', 400, "surrogate"),
    "surrogates in the wrong order": (b'{"a": "\\ude00\\ud83d"}', 400, "surrogate"),
    "a half around a whole pair": (b'{"a": "\\ud83d\\ud83d\\ude00\\ude00"}', 400, "surrogate"),
    "deep arrays": (b'{"a": ' + nested(MAX_DEPTH) + b"}", 400, "64 levels"),
    "deep objects": (nested(200, b'{"a":', b"}").replace(b":}", b":1}"), 400, "64 levels"),
    "very deep": (nested(20_000), 400, "64 levels"),
    "deep and never closed": (b"[" * 300_000, 400, "64 levels"),
    "deep after a closed string": (b'{"b": "\\\\", "a": ' + nested(100) + b"}", 400, "64 levels"),
    "more arrays than a parser should make": (b'{"a": [' + b"[]," * MAX_MEMBERS + b"1]}", 400, "100,000 arrays"),
    "more members than a parser should make": (b'{"a": {' + b'"": 1,' * MAX_MEMBERS + b"}}", 400, "100,000 arrays"),
    "more values than a parser should make": (b'{"b": [' + b"0," * (MAX_VALUES + 1) + b"1]}", 400, "500,000 values"),
    "more escapes than a parser should read": (
        b'{"b": "' + b"\\n" * (MAX_ESCAPES + 1) + b'"}',
        400,
        "2,000,000 escapes",
    ),
    "more text beyond ASCII than a parser should convert": (
        b'{"b": "' + "é".encode() * (MAX_NOT_ASCII // 2) + b'"}',
        400,
        "bytes of text beyond ASCII",
    ),
    "many left open": (b"[]" * 60 + b"[" * 10, 422, "Invalid JSON"),
    "no JSON": (b"{bad", 422, "Invalid JSON"),
    "cut off": (b'{"a": "x', 422, "Invalid JSON"),
    "two documents": (b"{} {}", 422, "Invalid JSON"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 422, "Invalid JSON"),
    "NaN": (b'{"a": NaN}', 422, "Invalid JSON"),
    "Infinity": (b'{"a": -Infinity}', 422, "Invalid JSON"),
    "single quotes": (b"{'a': 1}", 422, "Invalid JSON"),
    "a comma too much": (b'{"a": [1,]}', 422, "Invalid JSON"),
    "a bad escape": (b'{"a": "\\uZZZZ"}', 422, "Invalid JSON"),
    "a raw line break in a string": (b'{"a": "\n"}', 422, "Invalid JSON"),
    "an array": (b"[]", 422, "must be an object, not an array"),
    "a wrong type": (b'{"number": "1"}', 422, "`number` must be an integer, not a string"),
    "a number that no float holds": (b'{"a": 1e999}', 422, "out of range"),
    "an integer of 100,000 digits": (b'{"a": ' + b"1" * 100_000 + b"}", 422, "out of range"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused_with_a_sentence(name: str) -> None:
    body, status, sentence = HOSTILE[name]
    async with serving(things, max_bytes=32 * MAX_BODY_BYTES) as client:
        response = await client.post("/things", content=body, headers=JSON)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert sentence in problem["detail"]


GOOD = {
    "an escaped backslash before u0000": b'{"a": "\\\\u0000"}',
    "an escaped backslash before a surrogate": b'{"a": "\\\\ud800"}',
    "a pair of surrogates": b'{"a": "\\ud83d\\ude00 \\uD83D\\uDE00"}',
    "characters of four bytes": '{"a": "😀é\u2028"}'.encode(),
    "brackets in strings": b'{"a": "' + b"[{" * 1000 + b'"}',
    "quotes and brackets in strings": b'{"a": "' + b'\\"[' * 1000 + b'"}',
    "strings that end in an escaped backslash": b'{"a": [' + b'"[\\\\", ' * 100 + b"1]}",
    "as deep as allowed": b'{"a": ' + nested(MAX_DEPTH - 1) + b"}",
    "wide": b'{"a": [' + b"[], " * 5000 + b"{}]}",
    "an integer of 30 digits": b'{"a": ' + b"1" * 30 + b"}",
    "the same field twice": b'{"a": 1, "a": 2}',
    "unknown fields": b'{"b": {"c": []}, "a": 1}',
    "white space around": b' \n\t{"a": 1}\r\n ',
}


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_body_arrives_as_it_was_sent(name: str) -> None:
    async with serving(things) as client:
        response = await client.post("/things", content=GOOD[name], headers=JSON)
    assert response.status_code == 200
    assert response.json()["a"] == json.loads(GOOD[name]).get("a")


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/merge-patch+json"}, 200),
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/jsonp"}, 415),
        ({"content-type": "application/json, text/plain"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
    ],
)
async def test_only_plain_json_is_taken(headers: dict[str, str], status: int) -> None:
    async with serving(things) as client:
        response = await client.post("/things", content=b"{}", headers=headers)
    assert response.status_code == status


async def test_no_body_reads_as_an_empty_object_whatever_its_type() -> None:
    async with serving(things) as client:
        response = await client.post("/things", headers={"content-type": "text/plain"})
    assert response.json() == {"a": None, "number": 0}


@pytest.mark.parametrize(
    "path, large",
    [
        ("/api/v1/threads/1/runs", True),
        ("/api/v1/threads/1/runs/stream", True),
        ("/api/v1/runs/wait", True),
        ("/api/v1/threads/1/state", True),
        ("/api/v1/threads", True),
        ("/api/v1/threads/search", False),
        ("/api/v1/assistants", False),
        ("/api/v1/statement", False),
    ],
)
def test_routes_that_take_messages_take_more(path: str, large: bool) -> None:
    assert takes_messages(path) is large


@pytest.mark.parametrize(
    "path, size, status", [("/things", 100, 200), ("/things", 101, 413), ("/threads/1/runs", 101, 200)]
)
async def test_a_body_over_the_limit_of_its_route_is_refused(path: str, size: int, status: int) -> None:
    body = b'{"b": "' + b"x" * (size - 9) + b'"}'
    async with serving(things, runs, max_bytes=100) as client:
        response = await client.post(path, content=body, headers=JSON)
    assert response.status_code == status


async def exchange(
    messages: list[dict[str, Any]], headers: dict[str, str], **limits: Any
) -> tuple[int, dict[str, Any]]:
    """The response to a POST whose body arrives as ``messages``, and then nothing."""
    sent: list[dict[str, Any]] = []
    left = messages

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    app = RequestContextMiddleware(RequestBodyMiddleware(application(things), **limits), Meters())
    await app(scope("POST", "/things", headers), receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_that_does_not_come_in_time_gets_408() -> None:
    status, problem = await exchange([piece(b"{")], JSON, seconds=0.05)
    assert (status, problem["title"]) == (408, "Body too slow")
    assert "0.05 seconds" in problem["detail"]


async def test_a_length_that_lies_is_found_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "DISCARD_SECONDS", 0.01)
    status, _ = await exchange([piece(b" " * 60), piece(b" " * 60)], {**JSON, "content-length": "10"}, max_bytes=100)
    assert status == 413


async def test_an_announced_length_over_the_limit_is_refused_unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "DISCARD_SECONDS", 0.01)
    status, problem = await exchange([], {**JSON, "content-length": "101"}, max_bytes=100)
    assert (status, problem["detail"]) == (413, "The body is larger than the 100 bytes that this route takes.")


async def test_a_body_that_is_too_large_is_read_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "MAX_DISCARDED", 150)
    left = [piece(b" " * 60) for _ in range(10)]
    status, _ = await exchange(left, JSON, max_bytes=100)
    assert (status, len(left)) == (413, 5)  # two that were collected, and three that were thrown away


async def test_a_client_that_leaves_within_its_body_is_no_server_error() -> None:
    status, _ = await exchange([piece(b"{"), {"type": "http.disconnect"}], JSON)
    assert status == 400


async def test_pieces_are_put_together() -> None:
    status, value = await exchange([piece(b'{"a"'), piece(b""), piece(b": [1"), piece(b"]}", more=False)], JSON)
    assert (status, value["a"]) == (200, [1])


async def test_the_body_of_a_get_is_ignored() -> None:
    async with serving(things) as client:
        response = await client.request("GET", "/openapi.json", content=b"\xff" * 10)
    assert response.status_code == 200


async def test_the_problem_of_a_body_names_the_request() -> None:
    async with serving(things) as client:
        response = await client.post("/things", content=b"\xff", headers={**JSON, "x-request-id": "abc"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc"


@pytest.mark.parametrize("before", range(14))
@pytest.mark.parametrize(
    "text, sentence",
    [
        (b'"\\ud83d\\ude00\\\\"', ""),
        (b'"\\\\\\ud83d\\ude00\xf0\x9f\x98\x80"', ""),
        (b'"\\u0041\\\\u0000"', ""),
        (b'"\\\\\\u0000"', "u0000"),
        (b'"\\ud83d"', "surrogate"),
        (b'"\\""', ""),
        (b'["\\"["]', ""),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b"[" * 64 + b"]" * 64, ""),
        (b'"\xf0\x9f\x98"', "UTF-8"),
    ],
)
def test_what_stands_where_a_piece_ends_is_read_whole(before: int, text: bytes, sentence: str) -> None:
    body = b"[" + b" " * (SLICE - 1 - before) + text + b',"' + b"[" * SLICE + b'"]'
    body = body if b"[[" not in text else body[1:-1]
    found = ""
    try:
        check(body)
    except BadRequest as error:
        found = str(error)
    assert sentence in found if sentence else not found


def test_others_have_their_turn_while_a_large_body_is_looked_through() -> None:
    body = b'{"a": ["' + b"\\ud83d\\ude00" * 80_000 + b'", [' + b'"[", {}, ' * 80_000 + b"1]]}"
    assert sum(1 for _ in scan(body)) >= 2 * (len(body) // SLICE)


async def test_a_large_body_whose_turn_does_not_come_is_refused_when_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_bodies, "MAX_WAIT_SECONDS", 0.01)
    layer = RequestBodyMiddleware(application(things), large=lambda _: True, max_bytes=10, max_large_bytes=100)
    held = await layer.in_flight.acquire(None, 100, 1)
    left = [piece(b'{"a": "'), piece(b"x" * 50), piece(b'"}', more=False)]
    sent: list[Any] = []

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asked = scope("POST", "/things", {**JSON, "content-length": "59"})
    await RequestContextMiddleware(layer, Meters())(asked, receive, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], left) == (429, [])
    assert (b"retry-after", b"1") in sent[0]["headers"]
    layer.in_flight.release(None, held)
