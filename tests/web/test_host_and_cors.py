"""Allowed hosts and CORS."""

from typing import Any

import pytest

from app.base.errors import UsageError
from app.infra.http.host_and_cors import HostAndCorsMiddleware
from tests.system.services import API, Service, serving

PAGE = "https://app.example.com"


async def ask(service: Service, method: str = "GET", path: str = f"{API}/ok", **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.request(method, path, headers=sent)


def cors(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


async def test_with_authentication_no_page_may_read_unless_its_origin_is_listed(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        assert cors(await ask(service, origin=PAGE)) == {}
        asked = await ask(service, "OPTIONS", origin=PAGE, access_control_request_method="POST")
        assert cors(asked) == {}


async def test_a_named_origin_may_read_every_answer_refusals_too(database_url: str) -> None:
    async with serving(
        database_url, AGENT_AUTH="api_key", AGENT_CORS_ORIGINS=f"{PAGE}, http://localhost:3000"
    ) as service:
        for path in (f"{API}/ok", f"{API}/threads/unknown", "/nothing"):
            answer = await ask(service, path=path, origin=PAGE)
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["vary"] == "Origin"
            assert "Location" in answer.headers["access-control-expose-headers"]
        large = await service.client.post(
            f"{API}/threads/search",
            content=b"x" * (2 << 20),
            headers={"origin": PAGE, "content-type": "application/json"},
        )
        assert (large.status_code >= 400, large.headers["access-control-allow-origin"]) == (True, PAGE)
        asked = await ask(
            service,
            "OPTIONS",
            f"{API}/runs/stream",
            origin="http://localhost:3000",
            access_control_request_method="POST",
            access_control_request_headers="x-api-key, content-type",
        )
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "X-Api-Key" in asked.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in asked.headers, "no cookies are taken anywhere"


ALMOST = [
    "https://app.example.com.evil.example",
    "https://app.example.com:444",
    "http://app.example.com",
    "https://APP.example.com",
    "null",
    "https://evil.example, https://app.example.com",
    "*",
]


async def test_an_origin_that_is_almost_a_named_one_may_not(database_url: str) -> None:
    for mode, status, preflight in (("none", 403, 403), ("api_key", 200, 204)):
        async with serving(database_url, AGENT_AUTH=mode, AGENT_CORS_ORIGINS=PAGE) as service:
            for origin in ALMOST:
                answer = await ask(service, origin=origin)
                asked = await ask(service, "OPTIONS", origin=origin, access_control_request_method="POST")
                assert (cors(answer), cors(asked)) == ({}, {}), origin
                assert (answer.status_code, asked.status_code) == (status, preflight), origin


HOSTS = [
    ("agents.example.com", True),
    ("AGENTS.example.com:8000", True),
    ("a.internal", True),
    ("a.b.internal", True),
    ("internal", False),
    ("evilinternal", False),
    ("agents.example.com.evil.example", False),
    ("evil.example", False),
    ("127.0.0.1:8000", False),
    ("agents.example.com@evil.example", False),
    ("", False),
]
"""A name, and whether it is served."""


async def test_other_names_are_refused_but_probes_need_none(database_url: str) -> None:
    names = "agents.example.com, *.internal"
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_ALLOWED_HOSTS=names) as service:
        for host, served in HOSTS:
            answer = await ask(service, host=host)
            assert answer.status_code == (200 if served else 400), host
            if not served:
                assert answer.headers["content-type"] == "application/problem+json"
                assert host not in answer.text or not host
            assert (await ask(service, path="/livez", host=host)).status_code == (400 if "@" in host else 200), host


@pytest.mark.parametrize(
    "hosts, origins, words",
    [
        ("", "*", "AGENT_CORS_ORIGINS has the invalid entry '\\*'"),
        ("", "https://a.example/", "AGENT_CORS_ORIGINS has the invalid entry"),
        ("", "a.example", "AGENT_CORS_ORIGINS has the invalid entry"),
        ("https://a.example", "", "AGENT_ALLOWED_HOSTS has the invalid entry"),
        ("a.example:8000", "", "AGENT_ALLOWED_HOSTS has the invalid entry"),
        ("*", "", "AGENT_ALLOWED_HOSTS has the invalid entry"),
    ],
)
def test_what_is_neither_a_name_nor_an_exact_origin_stops_the_start(hosts: str, origins: str, words: str) -> None:
    app: Any = None
    with pytest.raises(UsageError, match=words):
        HostAndCorsMiddleware(app, hosts, origins)
