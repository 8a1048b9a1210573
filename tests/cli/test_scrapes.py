"""``/metrics`` of a real server with two workers: totals of all, also after a worker died."""

import functools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.cli.health import probe
from tests.cli.commands import Running
from tests.serving.processes import is_alive
from tests.waiting import until

Start = Callable[..., Running]
REQUESTS = "http_server_request_duration_seconds_count"
OK = {"http_request_method": "GET", "http_route": "/api/v1/ok", "http_response_status_code": "200"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def get(port: int, path: str, accept: str = "") -> httpx.Response:
    """Send GET on a new connection, which any worker may accept."""
    headers = {"accept": accept, "connection": "close"}
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=20, verify=False)
    return answer.raise_for_status()


def sample_value(text: str, name: str, labels: dict[str, str]) -> float:
    """Return the sample ``name`` with these labels; 0 if missing."""
    found = [
        sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else 0


def has_exited(pid: int) -> bool:
    """Whether ``pid`` has exited."""
    return not is_alive(pid)


def children(pid: int) -> list[int]:
    """Return the child processes of ``pid``."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_totals_are_of_all_workers_and_never_fall_when_workers_die(start: Start, port: int, database_url: str) -> None:
    server = start(
        "serve", "--port", str(port), "--workers", "2", DATABASE_URL=database_url, AGENT_AUTH="none", LOG_FORMAT="json"
    )
    until(lambda: not probe("127.0.0.1", port), 60)
    sent, seen = 0, 0.0
    for deaths in range(2):
        server.printed("(?s)" + '"event": "serving".*' * (2 + deaths))
        for _ in range(20):
            get(port, "/api/v1/ok")
            sent += 1
        # a request is counted after its response, so the client may be faster
        until(lambda sent=sent: sample_value(get(port, "/metrics").text, REQUESTS, OK) >= sent)  # type: ignore[misc]
        for _ in range(6):
            assert sample_value(get(port, "/metrics").text, REQUESTS, OK) == sent
        victim = children(server.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        until(functools.partial(has_exited, victim))

        def whole(sent: int = sent) -> bool:
            nonlocal seen
            try:
                now = sample_value(get(port, "/metrics").text, REQUESTS, OK)
            except httpx.TransportError:
                return False  # the worker died
            assert now >= seen
            seen = now
            return now == sent and len(children(server.process.pid)) == 2

        until(whole, 60)
    server.printed("(?s)" + '"event": "serving".*' * 4)
    assert server.output().count('"event": "worker_lost"') == 2
    assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("role", ["all", "worker"])
def test_metrics_may_have_a_port_of_their_own(
    start: Start, port: int, metrics_port: int, database_url: str, role: str
) -> None:
    server = start(
        *("serve", "--port", str(port), "--workers", "2", "--role", role),
        DATABASE_URL=database_url,
        AGENT_AUTH="none",
        METRICS_PORT=str(metrics_port),
    )
    until(lambda: not probe("127.0.0.1", port), 60)
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        get(port, "/metrics")
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        get(metrics_port, "/api/v1/health/ready")
    alive = {**OK, "http_route": "/api/v1/health/live"}
    get(port, "/api/v1/health/live")

    def count() -> float:
        return sample_value(get(metrics_port, "/metrics").text, REQUESTS, alive)

    before = until(count)
    get(port, "/api/v1/health/live")
    until(lambda: count() > before)  # it is counted after its response
    plain = get(metrics_port, "/metrics")
    assert sample_value(plain.text, REQUESTS, alive) == before + 1
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    other = get(metrics_port, "/metrics", OPENMETRICS)
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "agent_runs" in {family.name for family in parse_openmetrics(other.text)}  # type: ignore[no-untyped-call]
    assert re.search(r"# EOF\n\Z", other.text)
    assert server.stop(signal.SIGTERM) == 0


def test_without_a_metrics_port_a_worker_role_serves_metrics_on_its_port(
    start: Start, port: int, database_url: str
) -> None:
    start("serve", "--port", str(port), "--role", "worker", DATABASE_URL=database_url, AGENT_AUTH="none")
    until(lambda: not probe("127.0.0.1", port), 60)
    assert "agent_runs_active 0.0" in get(port, "/metrics").text
