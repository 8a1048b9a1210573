"""A real server that has done everything: all queried metrics are on its page, and Prometheus answers.

Series that cannot be provoked here are held against the declarations (``test_rules.py``).
"""

import asyncio
import contextlib
import json
import subprocess
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.cli.commands import run_command
from tests.database import clone, drop
from tests.journeys.conftest import PEPPER, Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.llm.wires import Say
from tests.observability.asking import DEPLOY, PROMETHEUS_OWN, RULES, program, queries, rules, selectors
from tests.ports import free_port
from tests.waiting import until

AGENTS = """\
[agents.helper]
model = "openai:tiny-chat"
fallback = ["anthropic:claude-x"]
tools = ["calculator"]
[agents.alone]
model = "openai:tiny-chat"
"""
EXPRESSIONS = [rule["expr"] for place in RULES for rule in rules(place)]
UNPROVOKED = {
    "agent_lease_lost_total",
    "agent_otlp_failures_total",
    "agent_redis_connected",
    "agent_redis_memory_bytes",
}
"""What has no series here; test_standing.py, test_redis.py and test_telemetry.py provoke it."""


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(["tiny-chat", "claude-x"]) as provider:
        yield provider


@pytest.fixture
async def server(server_url: str, tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Served]:
    """A server with two workers, a database of its own, and two vendors."""
    url = await clone(server_url)
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "url").write_text(url)
    keys = {f"{vendor}_{name}": value for vendor in ("OPENAI", "ANTHROPIC") for name, value in (("API_KEY", "sk-x"),)}
    settings = {
        "DATABASE_URL_FILE": str(tmp_path / "url"),
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "ANTHROPIC_BASE_URL": provider.url,
        "AGENT_RATE_PER_MINUTE": "40",
        "AGENT_AUTH": "api_key",
        "AGENT_KEY_PEPPER": PEPPER,
        "WORKERS": "2",
        **keys,
    }
    made = run_command(tmp_path, "keys", "create", "--name", "test", DATABASE_URL=url, AGENT_KEY_PEPPER=PEPPER)
    (tmp_path / "key").write_text(made.stdout.split()[-1])
    served = Served("", tmp_path, **settings)
    try:
        await asyncio.to_thread(served.wait_until_ready)
        yield served
    finally:
        await asyncio.to_thread(served.stop)
        await drop(server_url, url)


async def used(server: Served, provider: FakeProvider) -> None:
    """Runs of all kinds: with a tool, streamed, failed, handed to the fallback, in the background, refused."""
    question = {"input": {"messages": "What is 6*7?"}}
    helper, alone = {"assistant_id": "helper", **question}, {"assistant_id": "alone", **question}
    key = (server.log.parent / "key").read_text()
    async with httpx.AsyncClient(base_url=server.base, timeout=30, headers={"x-api-key": key}) as http:
        provider.plan(Say(text="", calls=[("calculator", '{"expression":"6*7"}')]), Say(text="It is 42."))
        assert (await http.post("/runs/wait", json=helper)).status_code == 200
        assert "Hello there" in (await http.post("/runs/stream", json=helper)).text
        provider.plan(Fault.SERVER_ERROR, Fault.SERVER_ERROR, Fault.SERVER_ERROR, Say(text="From the other."))
        await http.post("/runs/wait", json=helper)
        provider.plan(Fault.BAD_REQUEST)
        await http.post("/runs/wait", json=alone)
        await http.post("/runs", json={**helper, "webhook": "http://127.0.0.1:9/hook"})
        assert (await http.post("/runs/wait", json={})).status_code == 422
        assert (await http.get("/threads/00000000-0000-0000-0000-000000000000")).status_code == 404
        assert (await http.get("/threads/1", headers={"x-api-key": "wrong"})).status_code == 401
        refused = 0
        for _ in range(100):
            refused += (await http.post("/runs/wait", json=alone)).status_code == 429
            if refused:
                break
        assert refused


def on_the_page(server: Served) -> dict[str, list[dict[str, str]]]:
    """The samples of ``/metrics``: their labels, by name."""
    found: dict[str, list[dict[str, str]]] = {}
    page = httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=10).text
    for family in parse(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.timeout(150)
async def test_what_rules_and_dashboard_name_is_on_the_page_of_a_running_server(
    server: Served, provider: FakeProvider
) -> None:
    await used(server, provider)

    def lacking() -> set[str]:
        found = on_the_page(server)
        asked = [one for expression in [*EXPRESSIONS, *queries()] for one in selectors(expression)]
        return {
            f"{one.name}{sorted(one.labels)}"
            for one in asked
            if not PROMETHEUS_OWN.match(one.name)
            and one.name not in UNPROVOKED
            and not any(
                set(one.labels) - {"job", "instance", "slo"} <= set(labels) for labels in found.get(one.name, ())
            )
        }

    with contextlib.suppress(AssertionError):  # gauges are sampled every few seconds
        await asyncio.to_thread(until, lambda: not lacking(), 20)
    assert lacking() == set()
    places = [word for place in RULES for word in ("--rules", str(place))]
    address = f"http://127.0.0.1:{server.port}"
    doctor = await asyncio.to_thread(
        run_command, server.log.parent, "doctor", "--json", "--url", address, *places, "--skip", "server"
    )
    rows = {row["check"]: row["status"] for row in json.loads(doctor.stdout)["rows"] if row["area"] == "alerts"}
    assert (rows["rules load"], rows["metrics known"]) == ("pass", "pass")


class Prometheus:
    """A real one, that scrapes ``port`` and evaluates our rules each second."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = free_port()
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for name in config["rule_files"]:
            rules = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
            for group in rules["groups"]:
                group["interval"] = "1s"
            (folder / name).write_text(yaml.safe_dump(rules))
        ours, own = config["scrape_configs"]
        del ours["dns_sd_configs"]
        ours["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        own["static_configs"] = [{"targets": [f"127.0.0.1:{self.port}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ]
        )

    def asked(self, path: str, **parameters: str) -> Any:
        """A response of its API."""
        query = urllib.parse.urlencode(parameters)
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def prometheus(tmp_path: Path, server: Served) -> Iterator[Prometheus]:
    started = Prometheus(tmp_path, server.port)
    yield started
    started.stop()


def _answers(prometheus: Prometheus) -> bool:
    with contextlib.suppress(httpx.TransportError):
        if httpx.get(f"http://127.0.0.1:{prometheus.port}/-/ready").status_code == 200:
            return len(prometheus.asked("query", query='up{job="agent-service"} == 1')["result"]) == 1
    return False


@pytest.mark.timeout(150)
async def test_prometheus_answers_every_query_of_the_dashboard_and_no_rule_fails(
    server: Served, provider: FakeProvider, prometheus: Prometheus
) -> None:
    await asyncio.to_thread(until, lambda: _answers(prometheus), 30)
    await used(server, provider)

    def empty() -> list[str]:
        return [one for one in queries() if not prometheus.asked("query", query=one)["result"]]

    def burning() -> set[str]:
        found = prometheus.asked("query", query="slo:burn:rate5m")["result"]
        return {one["metric"]["slo"] for one in found}

    def complete() -> bool:
        return len(burning()) == 4 and not empty()

    # what is counted for the first time between two scrapes has no rate until it is counted again
    key, again = (server.log.parent / "key").read_text(), {"assistant_id": "helper", "input": {"messages": "Again."}}
    async with httpx.AsyncClient(base_url=server.base, timeout=30, headers={"x-api-key": key}) as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(90):
                while not await asyncio.to_thread(complete):
                    await http.post("/runs/wait", json=again)
    assert await asyncio.to_thread(empty) == []
    assert await asyncio.to_thread(burning) == {"availability", "first_token", "runs", "checkpoints"}
    groups = prometheus.asked("rules")["groups"]
    loaded_rules = [rule for group in groups for rule in group["rules"]]
    assert len(loaded_rules) == len(EXPRESSIONS)
    assert [(rule["name"], rule["lastError"]) for rule in loaded_rules if rule["health"] == "err"] == []
    [watchdog] = [rule for rule in loaded_rules if rule["name"] == "AgentServiceWatchdog"]
    assert watchdog["state"] == "firing"
    assert json.dumps(loaded_rules).count("error expanding template") == 0
