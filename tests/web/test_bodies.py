"""Hostile bodies get a 4xx with a sentence; good ones arrive as they were sent."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from litestar import post
from litestar.params import JSONBody

from app.base.errors import BadRequest, Invalid
from app.telemetry.meters import Meters
from app.web.bodies import DEEPEST, Bodies, check, takes_messages
from app.web.headers import Envelope
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
    "deep arrays": (b'{"a": ' + nested(DEEPEST) + b"}", 400, "64 levels"),
    "deep objects": (nested(200, b'{"a":', b"}").replace(b":}", b":1}"), 400, "64 levels"),
    "very deep": (nested(20_000), 400, "64 levels"),
    "deep and never closed": (b"[" * 300_000, 400, "64 levels"),
    "deep after a closed string": (b'{"b": "\\\\", "a": ' + nested(100) + b"}", 400, "64 levels"),
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
    async with serving(things) as client:
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
    "as deep as allowed": b'{"a": ' + nested(DEEPEST - 1) + b"}",
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
        ({}, 200),
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
    async with serving(things, runs, most=100) as client:
        response = await client.post(path, content=body, headers=JSON)
    assert response.status_code == status


async def exchange(
    messages: list[dict[str, Any]], headers: dict[str, str], **limits: Any
) -> tuple[int, dict[str, Any]]:
    """What a POST gets whose body comes as ``messages``; after them nothing comes."""
    sent: list[dict[str, Any]] = []
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    app = Envelope(Bodies(application(things), **limits), Meters())
    await app(scope("POST", "/things", headers), receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_that_does_not_come_in_time_gets_408() -> None:
    status, problem = await exchange([piece(b"{")], JSON, seconds=0.05)
    assert (status, problem["title"]) == (408, "Body too slow")
    assert "0.05 seconds" in problem["detail"]


async def test_a_length_that_lies_is_found_by_counting() -> None:
    status, _ = await exchange([piece(b" " * 60), piece(b" " * 60)], {**JSON, "content-length": "10"}, most=100)
    assert status == 413


async def test_an_announced_length_over_the_limit_is_refused_unread() -> None:
    status, problem = await exchange([], {**JSON, "content-length": "101"}, most=100)
    assert (status, problem["detail"]) == (413, "The body is larger than the 100 bytes that this route takes.")


async def test_a_client_that_leaves_within_its_body_is_no_server_error() -> None:
    status, _ = await exchange([piece(b"{"), {"type": "http.disconnect"}], JSON)
    assert status == 400


async def test_pieces_are_put_together() -> None:
    status, value = await exchange([piece(b'{"a"'), piece(b""), piece(b": [1"), piece(b"]}", more=False)], JSON)
    assert (status, value["a"]) == (200, [1])


async def test_a_get_may_bring_a_body_that_nobody_reads() -> None:
    async with serving(things) as client:
        response = await client.request("GET", "/openapi.json", content=b"\xff" * 10)
    assert response.status_code == 200


def slowly(body: bytes) -> str:
    """What ``check`` should say ("ok", "escape", "deep" or "unequal"), found by a walk through the text."""
    inside = escaped = False
    depth = deepest = 0
    units: list[int] = []
    closed_before_open = False
    at = 0
    while at < len(body):
        char = body[at : at + 1]
        if escaped:
            escaped = False
            digits = body[at + 1 : at + 5]
            is_unit = char == b"u" and len(digits) == 4 and all(digit in b"0123456789abcdefABCDEF" for digit in digits)
            units.append(int(digits, 16) if is_unit else -1)
            at += 5 if is_unit else 1
            continue
        if char == b"\\":
            escaped = True
        else:
            units.append(-1)
            if char == b'"':
                inside = not inside
            elif not inside and char in {b"[", b"{"}:
                depth += 1
                deepest = max(deepest, depth)
            elif not inside and char in {b"]", b"}"}:
                depth -= 1
                closed_before_open = closed_before_open or depth < 0
        at += 1
    if _bad_unit(units):
        return "escape"
    if deepest > DEEPEST:
        return "deep"
    return "unequal" if depth or closed_before_open else "ok"


def _bad_unit(units: list[int]) -> bool:
    at = 0
    while at < len(units):
        if units[at] == 0 or 0xDC00 <= units[at] <= 0xDFFF:
            return True
        if 0xD800 <= units[at] <= 0xDBFF:
            if not (at + 1 < len(units) and 0xDC00 <= units[at + 1] <= 0xDFFF):
                return True
            at += 1
        at += 1
    return False


def quickly(body: bytes) -> str:
    try:
        check(body)
    except BadRequest as error:
        return "deep" if "levels" in str(error) else "escape"
    except Invalid:
        return "unequal"
    return "ok"


# Pieces of JSON-like text: strings whole with their escapes, brackets in runs, so that interesting cases are frequent.
ESCAPES = [
    "\\\\",
    '\\"',
    "\\n",
    "\\u0000",
    "\\u0041",
    "\\ud83d",
    "\\ude00",
    "\\uD83D\\uDE00",
    "u0000",
    "ud800",
    "[",
    "}",
    "é",
    "x",
]
TEXTS = st.lists(st.sampled_from(ESCAPES), max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
VALUES = st.recursive(
    TEXTS | st.just("1"),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.lists(st.tuples(TEXTS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
        st.tuples(st.integers(1, 70), inner).map(lambda pair: "[" * pair[0] + pair[1] + "]" * pair[0]),
    ),
    max_leaves=12,
)


@given(VALUES)
@example('[["[\\\\"],["]"]]')
def test_the_quick_check_of_json_agrees_with_a_walk_through_it(text: str) -> None:
    body = text.encode()
    assert quickly(body) == slowly(body)


@given(st.lists(st.sampled_from([*ESCAPES, '"', "[" * 30, "]" * 30, "{" * 40, "}" * 40, "\\"]), max_size=40))
def test_no_text_that_nests_too_deep_passes_however_broken_it_is(parts: list[str]) -> None:
    body = "".join(parts).encode()
    if slowly(body) == "deep":
        assert quickly(body) != "ok"


async def test_the_problem_of_a_body_names_the_request() -> None:
    async with serving(things) as client:
        response = await client.post("/things", content=b"\xff", headers={**JSON, "x-request-id": "abc"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc"
