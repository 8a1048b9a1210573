"""Each wire gives the same guarantees: every cell of the matrix wire by guarantee, against one server."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from app.security.access.structs import READ
from app.security.limits.structs import TenantLimits
from tests.database import clone, drop
from tests.journeys.conftest import PEPPER, Served
from tests.protocols.wires import WIRES, Sent, Wire, is_refused, new_id
from tests.system.services import serving
from tests.telemetry.collector import Collector
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

AGENTS = """
[agents.priced]
model = "openai:tiny-chat"

[auth]
path = "./auth.py:auth"
"""
AUTH = """
from langgraph_sdk import Auth

auth = Auth()

@auth.authenticate
def authenticate(request):
    return request.headers["x-api-key"]

@auth.on
async def own(ctx, value):
    mine = {"owner": ctx.user.identity}
    if isinstance(value, dict):
        value.setdefault("metadata", {}).update(mine)
    return mine
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4{number:03x}"


class Keys(NamedTuple):
    """API keys: of a tenant, one of it that may only read, and of others."""

    own: str
    reader: str
    operator: str
    other: str
    rated: dict[str, str]
    poor: str


class Server(NamedTuple):
    """A server, its keys, and the collector of its traces."""

    served: Served
    keys: Keys
    collector: Collector
    http: httpx.Client

    def send(self, sent: Sent, key: str, **headers: str) -> httpx.Response:
        every = {**sent.headers, "X-Api-Key": key, **headers}
        return self.http.post(sent.path, json=sent.body, headers=every)

    def runs(self, thread: str, key: str) -> list[Any]:
        answer = self.http.get(f"/api/v1/threads/{thread}/runs", headers={"X-Api-Key": key})
        return answer.json() if answer.status_code == 200 else []

    def people(self, thread: str, key: str) -> list[str]:
        """Return what people have said on a thread."""
        runs = self.runs(thread, key)
        if runs:
            path = f"/api/v1/threads/{thread}/runs/{runs[0]['run_id']}/join"
            self.http.get(path, headers={"X-Api-Key": key})
        state = self.http.get(f"/api/v1/threads/{thread}/state", headers={"X-Api-Key": key}).json()
        messages = (state.get("values") or {}).get("messages") or []
        return [str(one["content"]) for one in messages if one["type"] == "human"]


async def _make_keys(url: str) -> Keys:
    async with serving(url, AGENT_AUTH="api_key") as service:
        keys = service.services.auth.keys
        await keys.set_limits("poor", TenantLimits(cost_per_day=0.000001))
        rated = {}
        for name in WIRES:
            rated[name] = await service.key(f"rated {name}")
            await keys.set_limits(f"rated {name}", TenantLimits(rate_per_minute=1))
        own, other, poor = [await service.key(name) for name in ("own", "other", "poor")]
        return Keys(own, await service.key("own", READ), own, other, rated, poor)


@pytest.fixture(scope="module")
def server(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarantees")
    (folder / "agents.toml").write_text(AGENTS)
    (folder / "auth.py").write_text(AUTH)
    (folder / "prices.toml").write_text('"openai:tiny" = [10.0, 100.0]\n')
    url = asyncio.run(clone(server_url))
    keys = asyncio.run(_make_keys(url))
    with Collector() as collector:
        settings = {
            "AGENT_AUTH": "api_key",
            "AGENT_KEY_PEPPER": PEPPER,
            "AGENT_RATE_PER_MINUTE": "0",
            "AGENT_CONFIG": str(folder / "agents.toml"),
            "AGENT_PRICES": str(folder / "prices.toml"),
            "OPENAI_API_KEY": "sk-test",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        served = Served(url, folder, **settings)
        try:
            base = f"http://127.0.0.1:{served.wait_until_ready().port}"
            with httpx.Client(base_url=base, timeout=120) as http:
                yield Server(served, keys, collector, http)
        finally:
            served.stop()
            asyncio.run(drop(server_url, url))


def tenants(server: Server, name: str, wire: Wire) -> None:
    """Another tenant neither sees nor changes a thread, though it names its id."""
    thread = new_id()
    assert not is_refused(server.send(wire.start("echo", thread, "mine", new_id()), server.keys.own))
    foreign = server.send(wire.start("echo", thread, "theirs", new_id()), server.keys.other)
    assert "mine" not in foreign.text
    assert server.people(thread, server.keys.own) == ["mine"]


def roles(server: Server, name: str, wire: Wire) -> None:
    """A key that may read starts no run; the refusal is audited with its route."""
    thread = new_id()
    refused = server.send(wire.start("echo", thread, "hi", new_id()), server.keys.reader)
    assert (refused.status_code, is_refused(refused)) == (wire.status(403), True), refused.text
    assert server.runs(thread, server.keys.own) == []


def audit(server: Server, name: str, wire: Wire) -> None:
    """A refusal is in the audit log of its tenant."""
    sent = wire.start("echo", new_id(), "hi", new_id())
    server.send(sent, server.keys.reader)
    actor = server.keys.reader.split("_")[1]

    def recorded() -> bool:
        answer = server.http.get("/api/v1/audit?limit=100", headers={"X-Api-Key": server.keys.operator})
        found = {
            str(one["subject"]).partition(" ")[2]
            for one in answer.json()
            if (one["action"], one["actor"]) == ("request.forbidden", actor)
        }
        return any(re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", path), sent.path) for path in found)

    until(recorded)


def rates(server: Server, name: str, wire: Wire) -> None:
    """The second run of a key that may start one a minute is refused, and says when to come again."""
    first, second = (
        server.send(wire.start("echo", new_id(), "hi", new_id()), server.keys.rated[name]) for _ in range(2)
    )
    assert not is_refused(first), first.text
    assert (second.status_code, is_refused(second)) == (wire.status(429), True), second.text
    assert int(second.headers["retry-after"]) > 0


def budgets(server: Server, name: str, wire: Wire) -> None:
    """A tenant whose money is spent starts no run of a model."""
    refused = server.send(wire.start("priced", new_id(), "hi", new_id()), server.keys.poor)
    assert (refused.status_code, is_refused(refused)) == (wire.status(429), True), refused.text
    assert "dollars per day" in refused.text


def owners(server: Server, name: str, wire: Wire) -> None:
    """A thread that the handlers give to one person is not another's, though that one names its id."""
    thread = new_id()
    assert not is_refused(server.send(wire.start("echo", thread, "mine", new_id()), "ann"))
    refused = server.send(wire.start("echo", thread, "theirs", new_id()), "bob")
    assert is_refused(refused), refused.text
    assert "mine" not in refused.text
    assert server.people(thread, "ann") == ["mine"]
    assert server.people(thread, "bob") == []


def repetitions(server: Server, name: str, wire: Wire) -> None:
    """A request that is sent twice with its key has one run."""
    thread, key = new_id(), new_id()
    sent = wire.start("echo", thread, "once", key)
    for _ in range(2):
        assert not is_refused(answer := server.send(sent, server.keys.own)), answer.text
    assert server.people(thread, server.keys.own) == ["once"]
    assert len(server.runs(thread, server.keys.own)) == 1


def metrics(server: Server, name: str, wire: Wire) -> None:
    """Requests are counted by protocol and outcome."""
    if not wire.protocol:
        return  # LangGraph's own API is the rest of the routes

    def count(outcome: str) -> int:
        lines = re.findall(r"agent_protocol_requests_total\{(.*)\} (\d+)", server.http.get("/metrics").text)
        wanted = f'protocol="{wire.protocol}"', f'="{outcome}"'
        return sum(int(number) for labels, number in lines if all(one in labels for one in wanted))

    done, refused = count("success"), count("refused")
    server.send(wire.start("echo", new_id(), "hi", new_id()), server.keys.own)
    server.send(wire.start("echo", new_id(), "hi", new_id()), server.keys.reader)
    until(lambda: count("success") > done and (wire.errors_in_body or count("refused") > refused))


def traces(server: Server, name: str, wire: Wire) -> None:
    """The trace of a client goes on: its request names the protocol, and the run of the agent is in it."""
    trace = TRACE.format(number=list(WIRES).index(name) + 1)
    traceparent = f"00-{trace}-00f067aa0ba902b7-01"
    server.send(wire.start("echo", new_id(), "hi", new_id()), server.keys.own, traceparent=traceparent)

    def names() -> list[str]:
        return [span.name for span in server.collector.spans if span.trace == trace]

    until(lambda: any(one.startswith("POST") for one in names()) and any("invoke_agent" in one for one in names()))
    request = next(span for span in server.collector.spans if span.trace == trace and span.name.startswith("POST"))
    assert request.attributes.get("agent.protocol", "") == wire.protocol


GUARANTEES: dict[str, Callable[[Server, str, Wire], None]] = {
    guarantee.__name__: guarantee
    for guarantee in (tenants, roles, audit, rates, budgets, owners, repetitions, metrics, traces)
}


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("name", WIRES)
def test_each_wire_gives_each_guarantee(server: Server, name: str, guarantee: str) -> None:
    GUARANTEES[guarantee](server, name, WIRES[name])
