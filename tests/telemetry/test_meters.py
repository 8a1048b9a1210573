"""Instruments count in plain numbers and leave as text that Prometheus reads."""

import asyncio
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.telemetry.export import MetricsPage
from app.telemetry.lag import LoopLag
from app.telemetry.meters import MOST_SERIES, OVERFLOW, Counter, Histogram, Meters

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def used() -> Meters:
    meters = Meters()
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


@pytest.mark.parametrize("accept, parse", [("", parse_text), ("*/*", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_the_page_is_read_by_prometheus_in_both_formats(accept: str, parse: object) -> None:
    body, content_type = await MetricsPage(used(), "1.2.3").render(accept)
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


async def test_every_instrument_of_the_contract_is_on_the_page() -> None:
    body, _ = await MetricsPage(used(), "1").render()
    names = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)", body.decode(), re.MULTILINE))
    assert names - {"target_info"} == {
        "http_server_request_duration_seconds",
        "agent_runs_total",
        "agent_run_duration_seconds",
        "agent_runs_active",
        "agent_lease_lost_total",
        "agent_ratelimit_rejected_total",
        "agent_secret_rotations_total",
        "agent_webhooks_total",
        "agent_streams_open",
        "agent_tool_calls_total",
        "gen_ai_client_operation_duration_seconds",
        "gen_ai_client_token_usage",
        "agent_event_loop_lag_seconds",
    }


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram("x", "s", "", bounds=(1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.record(value)
    assert histogram.series[()].counts == [2, 2, 1]


def test_labels_without_bound_cannot_fill_the_memory() -> None:
    counter = Counter("x", "", "", ("id",))
    histogram = Histogram("x", "s", "", ("id",))
    for number in range(MOST_SERIES + 10):
        counter.add(1, str(number))
        histogram.record(1, str(number))
    assert len(counter.series) == len(histogram.series) == MOST_SERIES + 1
    assert counter.series[OVERFLOW,] == sum(histogram.series[OVERFLOW,].counts) == 10


async def test_the_loop_is_measured_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.lag.EVERY", 0.01)
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
