"""Instruments and the Prometheus page."""

import asyncio
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.infra.telemetry.instruments import MAX_SERIES, OVERFLOW, Counter, Histogram
from app.infra.telemetry.meters import LATEST, Meters
from app.infra.telemetry.process_metrics import LoopLag, ProcessCollector
from app.infra.telemetry.prometheus_page import MetricsPage, prometheus_name
from app.infra.telemetry.shared_buffer import SharedMetricsBuffer
from docs.metrics import PAGE, render

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def used(buffer: SharedMetricsBuffer) -> Meters:
    meters = Meters(buffer)
    meters.http_server_request_duration.record(0.02, "GET", "/api/v1/ok", "200")
    meters.runs.add(2, "success", "assistant")
    meters.run_duration.record(1.5, "success", "assistant")
    meters.runs_active.add(3)
    meters.runs_active.add(-1)
    meters.tool_calls.add(1, "clock", "success")
    meters.model_duration.record(0.5, "chat", "openai", "gpt", "")
    meters.model_tokens.record(17, "chat", "openai", "gpt", "input")
    meters.loop_lag.record(0.002)
    return meters


def page(version: str) -> MetricsPage:
    buffer = SharedMetricsBuffer()
    return MetricsPage(used(buffer), [buffer], version)


@pytest.mark.parametrize("accept, parse", [("", parse_text), ("*/*", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_the_page_is_read_by_prometheus_in_both_formats(accept: str, parse: object) -> None:
    body, content_type = await page("1.2.3").render(accept)
    assert content_type.startswith("application/openmetrics-text" if accept == OPENMETRICS else "text/plain")
    families = parse(body.decode())  # type: ignore[operator]
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
    request = (
        ("http_request_method", "GET"),
        ("http_response_status_code", "200"),
        ("http_route", "/api/v1/ok"),
    )
    assert samples["http_server_request_duration_seconds_count", request] == 1
    assert samples["http_server_request_duration_seconds_sum", request] == 0.02
    assert samples["http_server_request_duration_seconds_bucket", (*request, ("le", "0.025"))] == 1
    assert samples["http_server_request_duration_seconds_bucket", (*request, ("le", "0.01"))] == 0
    assert samples["agent_runs_total", (("assistant", "assistant"), ("status", "success"))] == 2
    assert samples["agent_runs_active", ()] == 2
    assert samples["agent_streams_open", ()] == 0
    assert samples["agent_event_loop_lag_seconds_count", ()] == 1
    assert samples["target_info", (("service_name", "agent-service"), ("service_version", "1.2.3"))] == 1


CONTRACT = {
    "http.server.request.duration",
    "gen_ai.client.operation.duration",
    "gen_ai.client.token.usage",
    "gen_ai.server.time_to_first_token",
    "db.client.connection.count",
    "agent.runs",
    "agent.run.duration",
    "agent.runs.active",
    "agent.queue.depth",
    "agent.queue.oldest_age",
    "agent.streams.open",
    "agent.tool.calls",
    "agent.lease.lost",
    "agent.event_loop.lag",
}


async def test_every_instrument_is_on_the_page_those_of_the_contract_among_them() -> None:
    body, _ = await page("1").render()
    names = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)", body.decode(), re.MULTILINE))
    declared = Meters().instruments()
    assert names - {"target_info"} == {
        prometheus_name(part) + ("_total" if part.kind == "counter" else "") for part in declared
    }
    assert {part.name for part in declared} >= CONTRACT


def test_newer_names_of_the_conventions_are_taken_on_request() -> None:
    names = {part.name for part in Meters(latest=True).instruments()}
    assert {*LATEST.values()} <= names
    assert not names & {*LATEST}


def test_no_label_is_an_id() -> None:
    labels = {label for part in Meters().instruments() for label in part.labels}
    assert not [label for label in labels if label.endswith((".id", "_id")) or label in {"thread", "run", "tenant"}]


def test_the_page_of_metrics_is_current() -> None:
    """docs/reference/metrics.md is what `make docs-metrics` writes."""
    assert PAGE.read_text(encoding="utf-8") == render()


async def test_a_process_reports_its_resource_usage() -> None:
    meters = Meters()
    vitals = ProcessCollector(meters)
    vitals.sample()
    before = sum(meters.cpu.series.values())
    sum(number * number for number in range(2_000_000))
    vitals.sample()
    assert sum(meters.cpu.series.values()) > before > 0
    assert 10e6 < meters.memory.series[()] < 10e9
    assert 2 < meters.descriptors.series[()] < 10_000
    assert meters.workers.series == {(): 1}


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram(SharedMetricsBuffer(), "x", "s", "", bounds=(1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.record(value)
    assert histogram.series[()].counts == [2, 2, 1]


def test_labels_without_bound_cannot_fill_the_memory() -> None:
    counter = Counter(SharedMetricsBuffer(), "x", "", "", ("id",))
    histogram = Histogram(SharedMetricsBuffer(), "x", "s", "", ("id",))
    for number in range(MAX_SERIES + 10):
        counter.add(1, str(number))
        histogram.record(1, str(number))
    assert len(counter.series) == len(histogram.series) == MAX_SERIES + 1
    assert counter.series[OVERFLOW,] == sum(histogram.series[OVERFLOW,].counts) == 10


async def test_the_loop_is_measured_until_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.infra.telemetry.process_metrics.TICK_SECONDS", 0.01)
    meters = Meters()
    lag = LoopLag(meters)
    lag.start()
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.005)
            if meters.loop_lag.series and sum(meters.loop_lag.series[()].counts) >= 3:
                break
    lag.stop()
    lag.stop()
    assert meters.loop_lag.series[()].total >= 0
