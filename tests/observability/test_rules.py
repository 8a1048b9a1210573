"""The rules of Prometheus: they load, each alert fires when it should, and names a page that says what to do."""

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.doctor.alert_rules import METRIC_NAMES
from app.cli.doctor.label_values import known_values, unknown_values
from deploy.grafana import dashboard
from deploy.prometheus import rules as generated
from tests.observability.asking import (
    DEPLOY,
    PROMETHEUS_OWN,
    RULE_TESTS,
    RULES,
    TARGET_LABELS,
    declared,
    grouped,
    program,
    queries,
    rules,
    selectors,
)

ROOT = DEPLOY.parent
ALERTS = {rule["alert"]: rule for rule in rules(RULES[1])}
VALUES = known_values()
EXPRESSIONS = [rule["expr"] for place in RULES for rule in rules(place)] + queries()
SEVERITIES = {"critical", "warning", "none"}
ALWAYS = "AgentServiceWatchdog"
ALERT_NAME = re.compile(r'alertname="(\w+)"')


@functools.cache
def expectations() -> list[dict[str, Any]]:
    """All that the files of tests expect."""
    cases = [case for place in RULE_TESTS for case in yaml.load(place.read_text(), yaml.CSafeLoader)["tests"]]
    return [one for case in cases for one in case["promql_expr_test"]]


def needed_rules(test_file: Path, folder: Path) -> Path:
    """Copy a file of rule tests into ``folder``, with the rules alone that its alerts depend on.

    promtool evaluates every rule at every interval; the whole files cost ten times what the alerts under test do.
    """
    tests = yaml.load(test_file.read_text(), yaml.CSafeLoader)
    wanted = {
        name for case in tests["tests"] for one in case["promql_expr_test"] for name in ALERT_NAME.findall(one["expr"])
    }
    groups = [group for place in RULES for group in yaml.load(place.read_text(), yaml.CSafeLoader)["groups"]]
    recorded: dict[str, list[str]] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        recorded.setdefault(rule.get("record") or rule["alert"], []).append(rule["expr"])
    new = wanted
    while new:
        new = {one.name for name in new for expr in recorded[name] for one in selectors(expr)} & set(recorded) - wanted
        wanted = wanted | new
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if (rule.get("record") or rule["alert"]) in wanted]
    groups = [group for group in groups if group["rules"]]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    names = [group["name"] for group in groups]
    order = [name for name in tests.pop("group_eval_order", []) if name in names]
    copy = folder / test_file.name
    copy.write_text(yaml.safe_dump({**tests, "rule_files": ["rules.yml"], "group_eval_order": order}))
    return copy


def ran(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_generated_is_current() -> None:
    """Else `make observability` was forgotten."""
    assert generated.PAGE.read_text() == generated.render()
    assert dashboard.PAGE.read_text() == dashboard.render()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert name.startswith("AgentService")
    assert alert["labels"]["severity"] in SEVERITIES
    notes = alert["annotations"]
    assert len(notes["description"]) > len(notes["summary"]) > 10
    page, _, heading = notes["runbook_url"].partition("#")
    assert heading == name.lower()
    text = (ROOT / page).read_text()
    [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert all(f"**{part}:**" in section for part in ("Meaning", "Check", "Action"))


def test_every_runbook_section_names_an_existing_alert() -> None:
    pages = [page for page in (ROOT / "docs" / "runbooks").glob("*.md") if page.name != "README.md"]
    headings = {heading for page in pages for heading in re.findall(r"^## (\w+)$", page.read_text(), re.MULTILINE)}
    assert headings == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_both_when_it_fires_and_when_it_does_not(name: str) -> None:
    expected = [one for one in expectations() if f'alertname="{name}"' in one["expr"]]
    fires = [one for one in expected if one["exp_samples"]]
    assert fires
    assert len(fires) < len(expected) or name == ALWAYS
    labels = set(re.findall(r"(\w+)=", fires[0]["exp_samples"][0]["labels"]))
    text = " ".join(ALERTS[name]["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, "labels of the text exist when it fires"


@pytest.mark.parametrize("name", ALERTS)
def test_ratios_are_evaluated_only_with_events(name: str) -> None:
    """Else a single failed run at night would page someone."""
    expression = ALERTS[name]["expr"]
    if re.search(r"/\s*sum by [^/]*increase|histogram_quantile|slo:burn", expression):
        assert re.search(r"\band\b.*(>=|>) \d{2,}\s*$", expression, re.DOTALL)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_and_label_of_a_query_is_declared(expression: str) -> None:
    known, asked = declared(), selectors(expression)
    labels = set(TARGET_LABELS)
    for selector in asked:
        if PROMETHEUS_OWN.match(selector.name):
            continue
        assert selector.name in known
        assert set(selector.labels) <= known[selector.name] | TARGET_LABELS
        labels |= known[selector.name]
    assert grouped(expression) <= labels
    assert set(METRIC_NAMES.findall(re.sub(r"\{[^}]*\}|\([a-z_, ]*\)", "", expression))) <= {one.name for one in asked}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_value_that_a_label_is_compared_with_is_one_that_is_counted(expression: str) -> None:
    """Else the rule never fires, unnoticed."""
    assert unknown_values(expression, VALUES) == []


@pytest.mark.parametrize(
    "expression, wrong",
    [
        ('agent_runs_total{status="success"}', ""),
        (
            'agent_runs_total{status="succes"}',
            "agent_runs_total has no status 'succes': it is one of 'success'",
        ),
        ("agent_runs_total{assistant='a}', status!='sucess'}", "no status 'sucess'"),
        ('agent_runs_total{status=~"error|time"}', "no status 'error|time'"),
        ('agent_runs_total{status=~"err.*|time.+"}', ""),
        ('agent_run_duration_seconds_count{status!~"(lost|eror)"}', ""),
        ('agent_run_duration_seconds_count{status!~"(lots|eror)"}', "no status"),
        ('agent_checkpoint_duration_seconds_sum{error_type=~"|Unavailable"}', ""),
        ('agent_checkpoint_duration_seconds_sum{error_type="Unavailible"}', "no error_type 'Unavailible'"),
        ('http_server_request_duration_seconds_count{http_response_status_code=~"4..|501"}', ""),
        ('http_server_request_duration_seconds_count{http_response_status_code="5xx"}', "no http_response_status_code"),
        ('gen_ai_server_time_to_first_token_seconds_bucket{le="2.5"}', ""),
        ('gen_ai_server_time_to_first_token_seconds_bucket{le="2"}', "no le '2'"),
        ('gen_ai_client_inference_time_to_first_chunk_seconds_bucket{le="3"}', "no le '3'"),
        ('agent_webhooks_total{outcome=~"$outcome"}', ""),
        ('agent_tool_calls_total{tool="anything"}', ""),
        ('somebody_elses{status="any"}', ""),
    ],
)
def test_a_value_that_is_never_counted_is_reported(expression: str, wrong: str) -> None:
    found = unknown_values(f"sum by (job) (rate({expression}[5m])) > 1", VALUES)
    assert [one for one in found if wrong in one] if wrong else found == []


def test_the_files_load() -> None:
    ran(program("promtool"), "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@pytest.mark.parametrize("place", RULE_TESTS, ids=lambda place: place.stem)
@pytest.mark.timeout(150)
def test_alerts_fire_when_they_should_and_only_then(place: Path, tmp_path: Path) -> None:
    ran(program("promtool"), "test", "rules", str(needed_rules(place, tmp_path)))
