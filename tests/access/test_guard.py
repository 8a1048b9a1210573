"""The guard of the whole application: no access without a key, and no key in responses or logs."""

import asyncio
import re
from uuid import UUID

import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from structlog.testing import capture_logs

from app.security.access.structs import DEFAULT_TENANT, MONITOR, READ, tenant_id_of
from app.server.asgi import layers, litestar
from tests.system.services import API, NOWHERE, Service, built, client_of, serving

OPEN_ROUTES = {
    f"GET {API}/ok",
    f"GET {API}/info",
    f"GET {API}/health",
    f"GET {API}/health/ready",
    f"GET {API}/health/live",
    "GET /metrics",
    "GET /docs",
    "GET /docs/errors",
    "GET /docs/assets/{name:str}",
    "GET /openapi.json",
    "GET /",
    "GET /console",
    "GET /console/{path:path}",
    "GET /console/assets/{digest:str}/{path:path}",
    "GET /.well-known/agent-card.json",
    "GET /a2a/jwks.json",
    "GET /a2a/{assistant:str}/.well-known/agent-card.json",
}
"""The routes that need no key."""

ISSUER_ROUTES = {
    "GET /.well-known/oauth-protected-resource",
    "GET /.well-known/oauth-protected-resource/{path:path}",
}
"""Routes that need no key, and say nothing without an issuer of tokens."""

SIGN_IN_ROUTES = {"GET /mcp/oauth/callback"}
"""Routes that a browser opens, which has no key: the state of a sign-in stands for it."""

FILES = {"name": "docs.js", "path": "/icon.svg", "assistant": "echo"}
"""Values of path parameters that name a file, and of an agent with a card."""


def routes_of(service: Service) -> list[tuple[str, str]]:
    """Return (method, path template) of every route."""
    found = []
    for route in litestar(service.services).routes:
        assert isinstance(route, HTTPRoute), "a new kind of route needs a guard"
        handlers: list[HTTPRouteHandler] = list(route.route_handlers)
        found += [(method, route.path) for handler in handlers for method in handler.http_methods]
    return [(method, path) for method, path in found if method != "OPTIONS"]


async def statuses(service: Service, key: str = "") -> dict[str, int]:
    """Return the status of each route for an empty request."""
    found = {}
    for method, path in routes_of(service):
        target = re.sub(r"\{(\w+):\w+\}", lambda match: FILES.get(match[1], str(UUID(int=7))), path).replace("//", "/")
        headers = {"x-api-key": key} if key else {}
        answer = await service.client.request(method, target, headers=headers)
        found[f"{method} {path}"] = answer.status_code
    return found


async def test_every_route_needs_a_key_but_the_listed_ones(service: Service) -> None:
    while (await service.client.get("/api/v1/health/ready")).status_code != 200:  # noqa: ASYNC110  the first probes
        await asyncio.sleep(0.02)
    answers = await statuses(service)
    assert len(answers) > 25
    assert {route for route, status in answers.items() if status != 401} == OPEN_ROUTES | ISSUER_ROUTES | SIGN_IN_ROUTES
    assert {answers[route] for route in OPEN_ROUTES} == {200}
    assert {answers[route] for route in ISSUER_ROUTES} == {404}
    assert {answers[route] for route in SIGN_IN_ROUTES} == {404}
    assert await statuses(service, "as_0123456789abcdef_" + "A" * 43) == answers


async def test_a_key_without_scopes_is_forbidden_every_route_that_needs_one(service: Service, tenant: str) -> None:
    answers = await statuses(service, await service.key(tenant, MONITOR))
    assert {route for route, status in answers.items() if status != 403} == OPEN_ROUTES | ISSUER_ROUTES | SIGN_IN_ROUTES


async def test_a_refusal_is_a_problem_that_says_what_to_send(service: Service) -> None:
    answer = await service.get("/threads/" + str(UUID(int=7)))
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["detail"] == "An API key is needed: send Authorization: Bearer KEY, or X-Api-Key: KEY."
    answer = await service.get("/threads/" + str(UUID(int=7)), "as_wrong")
    assert answer.status_code == 401
    assert "unknown, expired or revoked" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {key}"},
        {"authorization": "bearer  {key} "},
        {"X-Api-Key": "{key}"},
        {"Authorization": "Basic dTpw", "X-Api-Key": "{key}"},
        {"Authorization": "Bearer {key}", "X-Api-Key": "something else"},
        {"Authorization": "Bearer ", "X-Api-Key": "{key}"},
    ],
)
async def test_a_key_comes_in_either_header(service: Service, tenant: str, headers: dict[str, str]) -> None:
    key = await service.key(tenant, READ)
    sent = {name: text.format(key=key) for name, text in headers.items()}
    answer = await service.client.post(f"{API}/threads/search", json={}, headers=sent)
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"Bearer", b"Basic dTpw", b"Bearer a\x01b", b"Bearer \xff\xfe", b"Bearer " + b"x" * 5000, b"\x00"],
)
@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
async def test_a_header_that_holds_no_key_is_refused(service: Service, name: bytes, value: bytes) -> None:
    answer = await service.client.post(f"{API}/threads/search", headers=[(name, value)])
    assert answer.status_code == 401


async def test_a_key_acts_for_its_own_tenant(service: Service, tenant: str) -> None:
    mine, others = await service.key(tenant), await service.key(f"other {tenant}")
    made = await service.client.post(f"{API}/threads", json={}, headers={"x-api-key": mine})
    thread = f"/threads/{made.json()['thread_id']}"
    assert (await service.get(thread, mine)).status_code == 200
    assert (await service.get(thread, others)).status_code == 404


async def test_without_authentication_every_key_is_ignored(database_url: str, tenant: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:
        made = await service.client.post(f"{API}/threads", json={}, headers={"x-api-key": "anything"})
        assert made.status_code == 200
        foreign = await service.key(tenant)
        assert (await service.get(f"/threads/{made.json()['thread_id']}", foreign)).status_code == 200
        assert (await service.get(f"/threads/{made.json()['thread_id']}")).status_code == 200
        assert tenant_id_of(tenant) != DEFAULT_TENANT


async def test_without_the_database_a_key_is_503_and_open_routes_stay_open() -> None:
    services = built(NOWHERE, AGENT_AUTH="api_key")
    key = f"as_{'0' * 16}_{'A' * 43}"
    app = layers(services)
    async with client_of(app) as client:
        service = Service(services, app, client)
        answer = await service.get("/threads/" + str(UUID(int=7)), key)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        for path in ("/ok", "/info", "/health/live"):
            assert (await service.get(path, key)).status_code == 200
        health = await service.get("/health", key)
        assert (health.status_code, health.json()) == (503, {"status": "unhealthy"})
    await services.persistence.database.aclose()


async def test_no_part_of_a_secret_reaches_an_answer_or_the_log(service: Service, tenant: str) -> None:
    key = await service.key(tenant)
    secret = key.split("_", 2)[2]
    tried = [key, f"{key}x", key.upper(), f"as_0123456789abcdef_{secret}", f"Bearer {key}"]
    with capture_logs() as logged:
        for text in tried:
            for headers in ({"x-api-key": text}, {"authorization": f"Bearer {text}"}, {"authorization": text}):
                for path in ("/threads/" + str(UUID(int=7)), "/health", "/nothing"):
                    answer = await service.client.get(API + path, headers=headers)
                    assert secret[:8].lower() not in (answer.text + str(answer.headers)).lower()
    assert secret[:8].lower() not in str(logged).lower()
