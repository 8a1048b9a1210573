"""The outermost layer: ids, headers, aliases, metrics and the last resort."""

import re
from typing import Any

import pytest
import structlog
from litestar import Response, get
from litestar.params import FromPath

from app.infra.http.request_context import RequestContextMiddleware
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.trace_context import current_span, request
from tests.web.serving import Connection, application, scope, serving


@get("/things/{name:str}")
async def thing(name: FromPath[str]) -> dict[str, str | None]:
    place = current_span.get()
    return {"request_id": request.get(), "traceparent": None if place is None else place.traceparent}


@get("/kept")
async def kept() -> Response[str]:
    return Response("x", headers={"Cache-Control": "max-age=60"})


@get("/boom")
async def boom() -> None:
    raise ValueError


async def test_every_answer_has_the_headers_errors_too() -> None:
    async with serving(thing, boom) as client:
        for path in ("/things/a", "/nope", "/boom"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["server"] == "agent-service"


async def test_what_a_handler_sets_stays() -> None:
    async with serving(kept) as client:
        assert (await client.get("/kept")).headers.get_list("cache-control") == ["max-age=60"]


@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 64])
async def test_a_sane_request_id_is_kept(sent: str) -> None:
    async with serving(thing) as client:
        response = await client.get("/things/a", headers={"X-Request-Id": sent})
    assert response.headers["x-request-id"] == response.json()["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a\tb", "<script>", "é".encode()])
async def test_any_other_request_id_is_replaced(sent: Any) -> None:
    async with serving(thing) as client:
        response = await client.get("/things/a", headers={"X-Request-Id": sent})
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f-]{17}", response.headers["x-request-id"])


async def test_the_callers_trace_is_continued() -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    async with serving(thing) as client:
        seen = (await client.get("/things/a", headers={"traceparent": f"00-{trace}-{span}-01"})).json()
        none = (await client.get("/things/a", headers={"traceparent": "rubbish"})).json()
    assert seen["traceparent"] == f"00-{trace}-{span}-01"
    assert none["traceparent"] is None


async def test_a_request_leaves_no_context_behind() -> None:
    async with serving(thing) as client:
        await client.get("/things/a")
    assert (request.get(), current_span.get()) == ("", None)


async def test_requests_are_counted_by_method_route_and_status() -> None:
    meters = Meters()
    async with serving(thing, boom, meters=meters) as client:
        await client.get("/things/a")
        await client.get("/things/b")
        await client.get("/boom")
        await client.get("/nope/1")
        await client.request("BREW", "/things/a")
    series = meters.http_server_request_duration.series
    assert {key: sum(seen.counts) for key, seen in series.items()} == {
        ("GET", "/things/{name}", "200"): 2,
        ("GET", "/boom", "500"): 1,
        ("GET", "unmatched", "404"): 1,
        ("_OTHER", "unmatched", "405"): 1,
    }


async def test_an_alias_is_served_as_the_route_it_stands_for() -> None:
    meters = Meters()
    connection = Connection()
    app = RequestContextMiddleware(application(thing), meters, aliases={"/shortz": "/things/a"})
    await app(scope(path="/shortz"), connection.receive, connection.send)  # type: ignore[arg-type]
    assert connection.sent[0]["status"] == 200
    assert list(meters.http_server_request_duration.series) == [("GET", "/things/{name}", "200")]


@pytest.mark.parametrize("path", ["/things/a%00b", "/things/a?x=%00", "/nope%00"])
async def test_an_address_with_nul_is_refused(path: str) -> None:
    async with serving(thing) as client:
        response = await client.get(path)
    assert (response.status_code, response.json()["detail"]) == (
        400,
        "The URL has a NUL character, which cannot be stored: remove it.",
    )


async def test_what_fails_outside_the_application_is_a_problem() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("SECRET")

    connection = Connection()
    with structlog.testing.capture_logs() as lines:
        await RequestContextMiddleware(broken, Meters())(scope(), connection.receive, connection.send)  # type: ignore[arg-type]
    assert connection.sent[0]["status"] == 500
    assert connection.headers["content-type"] == "application/problem+json"
    assert b"SECRET" not in connection.body
    assert [line["event"] for line in lines] == ["request_failed"]


async def test_an_answer_that_fails_on_its_way_is_left_unfinished_and_logged() -> None:
    async def broken(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise RuntimeError

    connection = Connection()
    with structlog.testing.capture_logs() as lines:
        await RequestContextMiddleware(broken, Meters())(scope(), connection.receive, connection.send)  # type: ignore[arg-type]
    assert (connection.body, connection.ended) == (b"a", False)
    assert [line["event"] for line in lines] == ["answer_cut"]


async def test_a_client_that_leaves_before_the_answer_counts_as_499() -> None:
    async def silent(*_: Any) -> None: ...

    meters = Meters()
    connection = Connection()
    await RequestContextMiddleware(silent, meters)(scope(), connection.receive, connection.send)  # type: ignore[arg-type]
    assert list(meters.http_server_request_duration.series) == [("GET", "unmatched", "499")]
