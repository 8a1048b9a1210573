"""Every route bounds and checks its body, whatever a client puts into the parameters of its path."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from litestar.routes import HTTPRoute

from app.base.json_scan import MAX_DEPTH
from app.infra.http.request_bodies import MAX_BODY_BYTES
from app.server.asgi import litestar
from tests.system.services import API, Service, serving

WORDS = ("documents", "runs", "state")
"""What the paths of uploads, and of routes with larger bodies, end with."""
DEEP = b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2)
JSON = "application/json"
METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none", AGENT_MCP_ADMIN="on") as service:
        yield service


def routes_with_bodies(service: Service) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route that takes JSON, with each word as every parameter of its path."""
    for route in litestar(service.services).routes:
        if not isinstance(route, HTTPRoute):
            continue
        for method, (handler, _) in route.route_handler_map.items():
            if method in METHODS and handler.parsed_data_field is not None:
                for word in WORDS if route.path_parameters else WORDS[:1]:
                    parts = (part if isinstance(part, str) else word for part in route.path_components)
                    yield method, "/" + "/".join(parts)


async def refusal(service: Service, method: str, path: str, content: bytes, **headers: str) -> tuple[int, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await service.client.request(method, path, content=content, headers=given)
    return answer.status_code, answer.text


async def test_every_route_bounds_and_checks_its_body_whatever_its_path_says(service: Service) -> None:
    routes = list(routes_with_bodies(service))
    assert {path for _, path in routes} > {"/mcp/documents", "/a2a/documents", "/ag-ui/documents"}
    for method, path in routes:
        status, text = await refusal(service, method, path, b"{}", content_type=JSON, content_length=str(100 << 20))
        assert status == 413, (method, path, text)
        status, text = await refusal(service, method, path, b"{}", content_type="text/plain")
        assert status == 415, (method, path, text)
        status, text = await refusal(service, method, path, DEEP, content_type=JSON)
        assert f"{MAX_DEPTH} levels" in text, (method, path, status, text)  # JSON-RPC has its errors in a 200


async def test_a_parameter_of_a_path_gives_its_route_no_larger_body(service: Service) -> None:
    large = str(MAX_BODY_BYTES + 1)
    path = f"{API}/assistants/runs"
    assert (await refusal(service, "PATCH", path, b"{}", content_type=JSON, content_length=large))[0] == 413


async def test_an_upload_may_take_longer_than_a_response_may(database_url: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(1.2)
        yield b"two"

    async with serving(database_url, AGENT_AUTH="none", AGENT_REQUEST_SECONDS="1") as service:
        headers = {"content-type": "text/plain"}
        answer = await service.client.post(f"{API}/documents", content=pieces(), headers=headers)
    assert answer.status_code == 202, answer.text
