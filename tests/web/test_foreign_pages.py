"""Foreign web pages and a server without authentication: every route of the API, asked as a browser would."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from app.infra.http.host_and_cors import HostAndCorsMiddleware
from tests.system.services import API, Service, serving

HANDLERS = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str | None) -> str:
    return "ann"
"""
EVIL = "https://evil.example"
FRONT_END = "http://localhost:3000"
VERBS = {"get", "post", "put", "patch", "delete"}
FORMS = (
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
)


@pytest.fixture
async def unguarded(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none") as service:
        yield service


async def operations(service: Service) -> list[tuple[str, str]]:
    """Every method and path of the document, with ids of nothing in place of parameters, and the other open routes."""
    document = (await service.client.get("/openapi.json")).json()
    found = [("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/metrics"), ("GET", "/livez"), ("POST", "/nothing")]
    for path, item in document["paths"].items():
        for verb in VERBS & item.keys():
            parameters = [*item.get("parameters", ()), *item[verb].get("parameters", ())]
            names = [one["name"] for one in parameters if one["in"] == "path"]
            found.append((verb.upper(), path.format(**dict.fromkeys(names, str(uuid.uuid4())))))
    assert len(found) > 50
    return found


async def ask(service: Service, method: str, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.request(method, path, content=body or None, headers=sent)


async def test_no_route_serves_a_page_of_another_origin(unguarded: Service) -> None:
    for origin in [EVIL, "null", "https://localhost.evil.example", "http://127.0.0.1.evil.example:8000"]:
        with structlog.testing.capture_logs() as logged:
            for method, path in await operations(unguarded):
                answer = await ask(unguarded, method, path, b"{}", origin=origin, content_type="application/json")
                assert (answer.status_code, method, path) == (403, method, path)
                assert "access-control-allow-origin" not in answer.headers
                assert "AGENT_CORS_ORIGINS" in answer.json()["detail"]
        named = [line["value"] for line in logged if line["event"] == "origin_refused"]
        assert named == [origin], "each origin is logged once, however often it asks"


async def test_no_route_is_served_under_a_name_that_is_neither_loopback_nor_listed(unguarded: Service) -> None:
    for host in ["evil.example", "evil.example:8000", "localhost.evil.example", "192.168.1.7", ""]:
        for method, path in await operations(unguarded):
            answer = await ask(unguarded, method, path, b"{}", host=host, content_type="application/json")
            assert (answer.status_code, method, path) == (400, method, path)
        body = b'{"assistant_id": "echo", "input": {"messages": []}}'
        for origin in (FRONT_END, f"http://{host}"):
            answer = await ask(unguarded, "POST", f"{API}/runs/wait", body, host=host, origin=origin)
            assert answer.status_code == 400, "an origin is no way around the name"


async def test_a_body_outside_uploads_must_say_that_it_is_json(unguarded: Service) -> None:
    for kind in [None, "", *FORMS]:
        headers: Any = {} if kind is None else {"content_type": kind}
        for method, path in await operations(unguarded):
            if method == "GET" or path in (f"{API}/documents", "/nothing"):
                continue
            answer = await ask(unguarded, method, path, b'{"ids": []}', **headers)
            assert (answer.status_code, method, path) == (415, method, path)
            chunked = await unguarded.client.request(
                method,
                path,
                content=_chunks(),
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )
            assert (chunked.status_code, method, path) == (415, method, path)
            empty = await ask(unguarded, method, path, **headers)
            assert empty.status_code != 415, (method, path)


async def _chunks() -> AsyncIterator[bytes]:
    yield b'{"ids":'
    yield b" []}"


async def test_front_ends_of_this_machine_work_without_settings(unguarded: Service) -> None:
    for name in ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "app.localhost", "LOCALHOST", "localhost."]:
        origin = f"http://{name}:5173"
        asked = await ask(
            unguarded,
            "OPTIONS",
            f"{API}/threads",
            host="127.0.0.1:8000",
            origin=origin,
            access_control_request_method="POST",
            access_control_request_headers="content-type,x-api-key,last-event-id,x-of-a-front-end",
        )
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == origin
        allowed = {one.strip().lower() for one in asked.headers["access-control-allow-headers"].split(",")}
        assert {"content-type", "x-api-key", "last-event-id", "authorization", "x-of-a-front-end"} <= allowed
        assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(
            asked.headers["access-control-allow-methods"].split(", ")
        )

        made = await ask(
            unguarded,
            "POST",
            f"{API}/threads",
            b"{}",
            host=f"{name}:8000",
            origin=origin,
            content_type="application/json",
        )
        assert made.status_code == 200
        assert made.headers["access-control-allow-origin"] == origin
        readable = {one.strip() for one in made.headers["access-control-expose-headers"].split(",")}
        assert {"Content-Location", "Location", "X-Pagination-Total", "X-Pagination-Next", "X-Request-Id"} <= readable
        lost = await ask(unguarded, "GET", f"{API}/threads/{uuid.uuid4()}", origin=origin)
        assert (lost.status_code, lost.headers["access-control-allow-origin"]) == (404, origin)


async def test_an_origin_that_is_malformed_is_foreign(unguarded: Service) -> None:
    for origin in ["ftp://localhost", "http://localhost:99999", "http://localhost/", "http://[::1", "x"]:
        assert (await ask(unguarded, "GET", f"{API}/ok", origin=origin)).status_code == 403
        two = [("origin", FRONT_END), ("origin", EVIL), ("host", "localhost")]
        assert (await unguarded.client.get(f"{API}/ok", headers=two)).status_code == 403


async def test_listed_names_and_origins_are_served_in_addition_to_those_of_this_machine(database_url: str) -> None:
    settings: Any = {"AGENT_ALLOWED_HOSTS": "agents.example.com", "AGENT_CORS_ORIGINS": "https://app.example.com"}
    async with serving(database_url, AGENT_AUTH="none", **settings) as service:
        for host, origin, status in (
            ("agents.example.com", "https://app.example.com", 200),
            ("agents.example.com", "https://agents.example.com", 200),  # a page of this server itself
            ("agents.example.com", FRONT_END, 200),
            ("localhost:8000", "https://app.example.com", 200),
            ("localhost:8000", "https://agents.example.com", 403),
            ("agents.example.com", "https://agents.example.com:444", 403),
            ("other.example.com", "https://app.example.com", 400),
        ):
            answer = await ask(service, "GET", f"{API}/ok", host=host, origin=origin)
            assert (answer.status_code, host, origin) == (status, host, origin)


async def test_fetch_metadata_counts_where_a_browser_sends_no_origin(unguarded: Service) -> None:
    for site, mode, method, path, status in [
        ("cross-site", "navigate", "GET", "/docs", 200),
        ("cross-site", "no-cors", "GET", f"{API}/ok", 403),
        ("cross-site", "navigate", "POST", f"{API}/threads", 403),
        ("same-site", "no-cors", "GET", f"{API}/ok", 200),
        ("same-origin", "cors", "GET", f"{API}/ok", 200),
        ("none", "navigate", "GET", f"{API}/ok", 200),
    ]:
        kind = {"content_type": "application/json"} if method == "POST" else {}
        headers = {"sec_fetch_site": site, "sec_fetch_mode": mode, **kind}
        if mode == "navigate":
            headers["sec_fetch_dest"] = "document"
        body = b"{}" if method == "POST" else b""
        assert (await ask(unguarded, method, path, body, **headers)).status_code == status
        if path != "/docs":
            with_origin = await ask(unguarded, method, path, body, origin=FRONT_END, **headers)
            assert with_origin.status_code == 200, "Origin is judged first"


async def test_handlers_of_the_operator_count_as_authentication(database_url: str, tmp_path: Any) -> None:
    (tmp_path / "auth.py").write_text(HANDLERS)
    (tmp_path / "agents.toml").write_text("[agents.a]\nmodel = 'scripted:echo'\n[auth]\npath = './auth.py:auth'\n")
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        answer = await ask(service, "GET", f"{API}/ok", host="agents.example.com", origin=EVIL)
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)
        answer = await ask(service, "POST", f"{API}/threads", b"{}", host="agents.example.com", origin=EVIL)
        assert answer.status_code == 415


@pytest.mark.parametrize(
    "headers, passes",
    [
        ({"host": "localhost:8000", "origin": FRONT_END}, True),
        ({"host": "localhost:8000"}, True),
        ({"host": "localhost:8000", "origin": EVIL}, False),
        ({"host": "localhost:8000", "origin": "null"}, False),
        ({"host": "evil.example", "origin": FRONT_END}, False),
        ({"host": "evil.example"}, False),
        ({"host": "x:y", "origin": FRONT_END}, False),
    ],
)
async def test_websocket_handshakes_are_judged_alike(headers: dict[str, str], passes: bool) -> None:
    sent: list[Any] = []
    opened: list[Any] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        opened.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "websocket",
        "path": f"{API}/threads/x/stream",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    receive: Any = None
    await HostAndCorsMiddleware(socket, "", "", authenticated=False)(scope, receive, send)
    assert (len(opened), [(one["type"], one["code"]) for one in sent]) == (
        (1, []) if passes else (0, [("websocket.close", 1008)])
    )


@pytest.mark.parametrize("mode", ["none", "api_key"])
async def test_a_malformed_host_is_400_on_every_route(database_url: str, mode: str) -> None:
    async with serving(database_url, AGENT_AUTH=mode) as service:
        for host in ("x:y", "localhost:99999", "a b", "[::1", "[1:2]", "localhost:8000:1", "[::g]:80"):
            for method, path in (("GET", f"{API}/ok"), ("POST", f"{API}/threads"), ("GET", "/openapi.json")):
                answer = await ask(service, method, path, b"", host=host, idempotency_key="one")
                assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
