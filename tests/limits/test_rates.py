"""Requests over their rate get 429 with all a client needs, and take nothing."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.base.errors import UsageError
from app.infra.http.client_address import TrustedProxies
from app.security.limits.structs import TenantLimits
from tests.database import execute
from tests.redis import RedisServer
from tests.system.services import API, Service, serving

RUN = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "hello"}]}}


async def post(service: Service, path: str, key: str = "", **headers: str) -> httpx.Response:
    sent = {**headers, **({"x-api-key": key} if key else {})}
    body = RUN if path.startswith("/runs") else {}
    return await service.client.post(API + path, json=body, headers=sent)


async def test_runs_over_the_rate_of_a_key_are_429_and_say_when_to_come_again(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="3") as service:
        key, other = await service.key("rated"), await service.key("rated")
        answers = [await post(service, "/runs/wait", key) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"llm";q=3;w=60'
        assert answers[0].headers["ratelimit"] == '"llm";r=2;t=20'
        refused = answers[3]
        assert refused.headers["content-type"] == "application/problem+json"
        assert 19 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["ratelimit"].startswith('"llm";r=0;t=')
        assert refused.json()["detail"].startswith("This key may start 3 runs a minute: try again in ")
        assert (await post(service, "/runs", other)).status_code == 200
        assert (await post(service, "/threads/search", key)).status_code == 200, "only runs have this rate"
        for path in ("/ok", "/info", "/health/live", "/health/ready"):
            assert (await service.get(path)).status_code == 200
        assert 'limit="llm"' in (await service.client.get("/metrics")).text


async def test_of_copilotkits_single_route_only_runs_count_as_runs(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="1") as service:
        key, reader = await service.key("rated"), await service.key("rated", "read")
        params, said = {"agentId": "assistant", "threadId": "t"}, {"id": "m", "role": "user", "content": "hello"}

        async def call(method: str, key: str, run_id: str = "r") -> int:
            body = {"threadId": "t", "runId": run_id, "messages": [said], "tools": [], "context": []}
            sent: dict[str, Any] = {"method": method, "params": params}
            sent |= {} if method == "info" else {"body": body}
            answer = await service.client.post("/copilotkit", json=sent, headers={"x-api-key": key})
            return answer.status_code

        methods = ("info", "agent/connect", "agent/stop", "agent/run")
        assert [await call(method, reader) for method in methods] == [200, 200, 403, 403]
        assert [await call(method, key) for method in (*methods[:3], *methods)] == [200] * 7
        assert [await call(method, key, "r2") for method in methods] == [200, 200, 200, 429]


async def test_all_requests_of_a_key_and_of_a_tenant_have_rates_too(database_url: str) -> None:
    rates: dict[str, Any] = {"AGENT_REQUESTS_PER_MINUTE": "4", "AGENT_TENANT_REQUESTS_PER_MINUTE": "6"}
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="0", **rates) as service:
        one, two, stranger = [await service.key(name) for name in ("rated too", "rated too", "stranger")]
        assert [(await post(service, "/threads/search", one)).status_code for _ in range(5)] == [200] * 4 + [429]
        answers = [await post(service, "/threads/search", two) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"key";q=4;w=60, "tenant";q=6;w=60'
        assert "This tenant may make 6 requests a minute" in answers[2].json()["detail"]
        assert (await post(service, "/threads/search", stranger)).status_code == 200


async def test_a_tenant_has_limits_of_its_own_in_place_of_the_settings(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="1") as service:
        access = service.services.auth.keys
        rich, strict = await service.key("rich"), await service.key("strict")
        await access.set_limits("rich", TenantLimits(rate_per_minute=0))
        await access.set_limits("strict", TenantLimits(requests_per_minute=1))
        assert [(await post(service, "/runs", rich)).status_code for _ in range(3)] == [200] * 3
        assert [(await post(service, "/threads/search", strict)).status_code for _ in range(2)] == [200, 429]


async def test_a_limit_of_a_later_version_shuts_no_tenant_out_during_a_roll(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        key = await service.key("rolled")
        await service.services.auth.keys.set_limits("rolled", TenantLimits(requests_per_minute=1))
        later = """update tenants set limits = limits || '{"limit_of_a_later_version": 5}' where name = 'rolled'"""
        await execute(database_url, later)
        assert [(await post(service, "/threads/search", key)).status_code for _ in range(2)] == [200, 429]


async def test_without_keys_runs_have_a_rate_only_if_it_is_set(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:
        answer = await post(service, "/runs")
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
    async with serving(database_url, AGENT_AUTH="none", AGENT_RATE_PER_MINUTE="1") as service:
        assert [(await post(service, "/runs")).status_code for _ in range(2)] == [200, 429]


async def test_an_address_counts_that_a_trusted_proxy_names_and_no_other(database_url: str) -> None:
    settings: dict[str, Any] = {"AGENT_AUTH": "none", "AGENT_RATE_PER_MINUTE": "1"}
    async with serving(database_url, **settings) as service:
        said = [await post(service, "/runs", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(2)]
        assert [answer.status_code for answer in said] == [200, 429], "a client cannot choose its own address"
    async with serving(database_url, AGENT_TRUSTED_PROXIES="127.0.0.1", **settings) as service:
        said = [await post(service, "/runs", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in (1, 2, 1)]
        assert [answer.status_code for answer in said] == [200, 200, 429]


async def test_two_servers_on_one_redis_share_the_rate_of_a_key(database_url: str, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    settings: dict[str, Any] = {"AGENT_AUTH": "api_key", "AGENT_RATE_PER_MINUTE": "10", "REDIS_URL": redis.url}
    try:
        async with serving(database_url, **settings) as one, serving(database_url, **settings) as two:
            key = await one.key("shared")
            answers = [await post(service, "/runs", key) for _ in range(8) for service in (one, two)]
            assert sum(answer.status_code == 200 for answer in answers) == 10
            assert {answer.status_code for answer in answers} == {200, 429}
    finally:
        redis.stop()


@pytest.mark.parametrize(
    "client, forwarded, address",
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, not an address"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(
    client: str, forwarded: list[str], address: str
) -> None:
    scope: dict[str, Any] = {
        "client": (client, 1234),
        "headers": [(b"x-forwarded-for", text.encode()) for text in forwarded],
    }
    assert TrustedProxies(["10.0.0.0/8", "fd00::/8"]).client(scope) == address


def test_an_invalid_proxy_address_stops_the_start() -> None:
    with pytest.raises(UsageError, match="AGENT_TRUSTED_PROXIES has the invalid entry 'everybody'"):
        TrustedProxies(["everybody"])
