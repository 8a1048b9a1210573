"""Write dashboards/agent-service.json, the overview in Grafana: `make observability`.

A panel is a title, a unit and its queries (PromQL and legend); everything else is the same for all of them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parent / "dashboards" / "agent-service.json"

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ON = 'job=~"$job", instance=~"$instance"'
RATE = "$__rate_interval"
WIDTH, HEIGHT, COLUMNS = 8, 7, 24


class Panel(NamedTuple):
    """``queries`` are (PromQL, legend); ``note`` is its description."""

    title: str
    unit: str
    queries: list[tuple[str, str]]
    note: str = ""
    kind: str = "timeseries"


def total(name: str, by: str = "", more: str = "") -> str:
    """Sum of the rate of the counter ``name``."""
    return f"sum{_by(by)} (rate({name}{{{_with(more)}}}[{RATE}]))"


def now(name: str, by: str = "", more: str = "") -> str:
    """Sum of the gauge ``name`` over servers."""
    return f"sum{_by(by)} ({name}{{{_with(more)}}})"


def maximum(name: str, by: str = "", more: str = "") -> str:
    """Maximum of the gauge ``name``, which is equal on all servers."""
    return f"max{_by(by)} ({name}{{{_with(more)}}})"


def quantile(part: float, name: str, by: str = "", more: str = "") -> str:
    """A quantile of the histogram ``name``."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {total(f'{name}_bucket', labels, more)})"


def quantiles(name: str, more: str = "") -> list[tuple[str, str]]:
    """The median and the tail of the histogram ``name``."""
    return [(quantile(part, name, more=more), legend) for part, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _with(more: str) -> str:
    return f"{ON}, {more}" if more else ON


HTTP = "http_server_request_duration_seconds"
NO_PROBES = 'http_route!~".*/(health|health/ready|health/live|ok|info)|.*/metrics"'
CALL, FIRST = "gen_ai_client_operation_duration_seconds", "gen_ai_server_time_to_first_token_seconds"
TOKENS, TOOLS = "gen_ai_client_token_usage", "gen_ai_execute_tool_duration_seconds"
POOL = "db_client_connection_pool_name"

ROWS: dict[str, list[Panel]] = {
    "Overview": [
        Panel("Workers ready", "short", [(now("agent_workers_ready"), "ready")], kind="stat"),
        Panel("Runs under way", "short", [(now("agent_runs_active"), "runs")], kind="stat"),
        Panel(
            "Error budgets: how fast they are spent",
            "short",
            [('slo:burn:rate1h{job=~"$job"}', "{{slo}}")],
            "1: as fast as they recover. Above 14.4 an alert pages (docs/operations/alerts.md).",
        ),
    ],
    "Traffic": [
        Panel("Requests a second", "reqps", [(total(f"{HTTP}_count", "http_route", NO_PROBES), "{{http_route}}")]),
        Panel(
            "Responses by status",
            "reqps",
            [(total(f"{HTTP}_count", "http_response_status_code", NO_PROBES), "{{http_response_status_code}}")],
            "499: the client disconnected before a response began.",
        ),
        Panel("Duration of requests", "s", quantiles(HTTP, NO_PROBES), "Streams count until their end."),
    ],
    "Runs": [
        Panel("Runs ended a second", "ops", [(total("agent_runs_total", "status"), "{{status}}")]),
        Panel("Runs by agent", "ops", [(total("agent_runs_total", "assistant"), "{{assistant}}")]),
        Panel("Duration of runs", "s", quantiles("agent_run_duration_seconds")),
        Panel("Steps until durable", "s", quantiles("agent_checkpoint_duration_seconds")),
        Panel(
            "Leases",
            "short",
            [
                (total("agent_lease_lost_total"), "lost a second"),
                (maximum("agent_runs_orphaned"), "runs without an owner"),
            ],
        ),
        Panel("Oldest run under way", "s", [(maximum("agent_runs_oldest_age_seconds"), "age")]),
    ],
    "Queue": [
        Panel("Runs that wait", "short", [(maximum("agent_queue_depth"), "runs")]),
        Panel("Oldest of them", "s", [(maximum("agent_queue_oldest_age_seconds"), "age")]),
        Panel("Webhooks a second", "ops", [(total("agent_webhooks_total", "outcome"), "{{outcome}}")]),
    ],
    "Models": [
        Panel(
            "Time to first token",
            "s",
            [(quantile(0.95, FIRST, "gen_ai_request_model"), "p95 {{gen_ai_request_model}}"), *quantiles(FIRST)],
        ),
        Panel(
            "Duration of calls", "s", [(quantile(0.95, CALL, "gen_ai_request_model"), "p95 {{gen_ai_request_model}}")]
        ),
        Panel(
            "Tokens a second",
            "short",
            [
                (
                    total(f"{TOKENS}_sum", "gen_ai_request_model, gen_ai_token_type"),
                    "{{gen_ai_request_model}} {{gen_ai_token_type}}",
                )
            ],
        ),
        Panel(
            "Dollars an hour",
            "currencyUSD",
            [(f"3600 * {total('agent_model_cost_total', 'gen_ai_request_model')}", "{{gen_ai_request_model}}")],
        ),
        Panel(
            "Requests to providers",
            "reqps",
            [
                (
                    total("agent_model_attempts_total", "gen_ai_provider_name, error_type"),
                    "{{gen_ai_provider_name}} {{error_type}}",
                )
            ],
            "Each try; without an error's name it went well.",
        ),
        Panel(
            "Fallbacks and breakers",
            "short",
            [
                (
                    total("agent_model_fallbacks_total", "gen_ai_request_model"),
                    "calls a second on from {{gen_ai_request_model}}",
                ),
                (
                    now("agent_model_breaker_open", "gen_ai_provider_name"),
                    "workers with an open breaker for {{gen_ai_provider_name}}",
                ),
            ],
        ),
    ],
    "Tools": [
        Panel("Calls a second", "ops", [(total("agent_tool_calls_total", "tool, outcome"), "{{tool}} {{outcome}}")]),
        Panel("Duration of calls", "s", [(quantile(0.95, TOOLS, "gen_ai_tool_name"), "p95 {{gen_ai_tool_name}}")]),
    ],
    "Streams": [
        Panel("Open streams", "short", [(now("agent_streams_open"), "open"), (now("agent_streams_limit"), "limit")]),
        Panel(
            "Share of the limit", "percentunit", [(f"{now('agent_streams_open')} / {now('agent_streams_limit')}", "")]
        ),
    ],
    "Database": [
        Panel(
            "Connections",
            "short",
            [
                (
                    now("db_client_connection_count", f"{POOL}, db_client_connection_state"),
                    f"{{{{{POOL}}}}} {{{{db_client_connection_state}}}}",
                ),
                (now("db_client_connection_pending_requests", POOL), f"{{{{{POOL}}}}} waiting"),
            ],
        ),
        Panel(
            "Wait for a connection",
            "s",
            [(quantile(0.95, "db_client_connection_wait_time_seconds", POOL), f"p95 {{{{{POOL}}}}}")],
        ),
        Panel("Size", "bytes", [(maximum("agent_storage_size_bytes", "part"), "{{part}}")]),
    ],
    "Workers": [
        Panel(
            "Workers",
            "short",
            [
                (now("agent_workers"), "there"),
                (now("agent_workers_ready"), "ready"),
                (total("agent_worker_lost_total"), "lost a second"),
            ],
        ),
        Panel("Event loop lag", "s", quantiles("agent_event_loop_lag_seconds")),
        Panel("CPU", "short", [(total("process_cpu_time_seconds_total", "instance"), "{{instance}}")], "Cores."),
        Panel("Memory", "bytes", [(now("process_memory_usage_bytes", "instance"), "{{instance}}")]),
        Panel("Open descriptors", "short", [(now("process_unix_file_descriptor_count", "instance"), "{{instance}}")]),
        Panel("Age of secrets", "s", [(maximum("agent_secret_age_seconds", "name"), "{{name}}")]),
    ],
    "Limits": [
        Panel("Refused a second", "reqps", [(total("agent_ratelimit_rejected_total", "limit"), "{{limit}}")]),
        Panel(
            "Dollars and storage used by the tenant nearest to its limit",
            "percentunit",
            [(maximum("agent_budget_used", "budget"), "{{budget}}")],
        ),
        Panel(
            "Refused for their key a second",
            "reqps",
            [
                (
                    total(f"{HTTP}_count", "http_response_status_code", 'http_response_status_code=~"401|403"'),
                    "{{http_response_status_code}}",
                )
            ],
        ),
    ],
}


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for place, (query, legend) in enumerate(panel.queries)
    ]
    custom = {} if panel.kind == "stat" else {"custom": {"fillOpacity": 10, "showPoints": "never"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **custom}, "overrides": []},
        "targets": targets,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
        )
        y += 1
        for place, panel in enumerate(row):
            x = place * WIDTH % COLUMNS
            panels.append(_panel(len(panels) + 1, panel, x, y + place * WIDTH // COLUMNS * HEIGHT))
        y += -(-len(row) * WIDTH // COLUMNS) * HEIGHT
    source = {"name": "datasource", "label": "source", "type": "datasource", "query": "prometheus"}
    targets = "target_info"
    return {
        "uid": "agent-service",
        "title": "agent-service",
        "tags": ["agent-service"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                source,
                _variable("job", f'label_values({targets}{{service_name="agent-service"}}, job)'),
                _variable("instance", f'label_values({targets}{{job=~"$job"}}, instance)'),
            ]
        },
        "panels": panels,
    }


def render() -> str:
    """The file as it must be."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
