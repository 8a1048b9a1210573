"""Write rules.yml, the recording rules of the service level objectives: `make observability`.

For every objective the rates of events and of bad events are recorded at five windows; ratio, burn rate and alerts are
one rule for all objectives, joined with the targets that the server exposes.
Source: https://sre.google/workbook/alerting-on-slos/ (multiwindow, multi-burn-rate alerts).
"""

from pathlib import Path

PAGE = Path(__file__).with_suffix(".yml")

WINDOWS = ("5m", "30m", "1h", "6h", "3d")

PROBES = r".*/(health|health/ready|health/live|ok|info)|.*/metrics|unmatched"
"""Probe routes, which do not count: a 503 for a probe is not a failed request."""
_HTTP = f"http_server_request_duration_seconds_count{{http_route!~{PROBES!r}, "
_FIRST = "gen_ai_server_time_to_first_token_seconds"
_ENDED = "agent_checkpoint_duration_seconds_count"

FIRST_TOKEN_SECONDS = "2.5"  # noqa: S105  a bound of the histogram

EVENTS = {
    "availability": _HTTP + "http_response_status_code!~'4..|501'}",
    "first_token": f"{_FIRST}_count",
    "runs": "agent_runs_total{status=~'success|error|timeout'}",
    "checkpoints": _ENDED + "{error_type=~'|Unavailable'}",
}
"""Counted events by objective. Not counted: client errors and disconnects (4xx, 499), routes that are not implemented
(501), cancelled and interrupted runs, steps of runs that continue in another process."""

BAD = {
    "availability": _HTTP + "http_response_status_code=~'5..', http_response_status_code!='501'}",
    "runs": "agent_runs_total{status=~'error|timeout'}",
    "checkpoints": _ENDED + "{error_type='Unavailable'}",
}
IN_TIME = {"first_token": f"{_FIRST}_bucket{{le='{FIRST_TOKEN_SECONDS}'}}"}
"""Good events, where those are counted: bad events are the rest."""


def _rate(series: str, window: str) -> str:
    return f"sum by (job) (rate({series}[{window}]))"


def _bad(objective: str, window: str) -> str:
    events = _rate(EVENTS[objective], window)
    if objective in IN_TIME:
        return f"{events} - {_rate(IN_TIME[objective], window)}"
    return f"{_rate(BAD[objective], window)} or 0 * {events}"


def _rule(record: str, expression: str, slo: str = "") -> str:
    labels = f"        labels: {{slo: {slo}}}\n" if slo else ""
    return f"      - record: {record}\n        expr: >-\n          {expression}\n{labels}"


def _group(window: str) -> str:
    interval = {"5m": "15s", "30m": "30s", "1h": "30s"}.get(window, "2m")
    rules = [
        rule
        for objective in EVENTS
        for rule in (
            _rule(f"slo:events:rate{window}", _rate(EVENTS[objective], window), objective),
            _rule(f"slo:bad:rate{window}", _bad(objective, window), objective),
        )
    ]
    rules.append(_rule(f"slo:bad_ratio:rate{window}", f"slo:bad:rate{window} / (slo:events:rate{window} > 0)"))
    target = "(1 - max by (job, slo) (agent_slo_target))"
    rules.append(_rule(f"slo:burn:rate{window}", f"slo:bad_ratio:rate{window} / on (job, slo) {target}"))
    return f"  - name: slo-{window}\n    interval: {interval}\n    rules:\n" + "".join(rules)


def render() -> str:
    """Return the content of the file."""
    head = "# Generated from deploy/prometheus/rules.py by `make observability`: change it there.\ngroups:\n"
    return head + "\n".join(_group(window) for window in WINDOWS)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
