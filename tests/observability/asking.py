"""Queries of rules and dashboard, and Prometheus' programs."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml

from app.infra.telemetry.meters import Meters
from app.infra.telemetry.prometheus_page import plain_name, samples

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = [DEPLOY / "prometheus" / name for name in ("rules.yml", "alerts.yml")]
RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "agent-service.json"

PROMETHEUS_OWN = re.compile("up|prometheus_|ALERTS|slo:")
"""Metrics and labels of Prometheus itself."""
TARGET_LABELS = {"job", "instance", "le", "slo"}


class Selector(NamedTuple):
    """A vector selector of an expression: its name, and the labels that it names with their values or patterns."""

    name: str
    labels: dict[str, str]


def rules(place: Path) -> list[dict[str, Any]]:
    """The rules in the file ``place``."""
    return [rule for group in yaml.safe_load(place.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Every query of the dashboard, with its variables filled in for a scrape each second."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "60s").replace("$job", ".*").replace("$instance", ".*") for one in asked]


def selectors(expression: str) -> list[Selector]:
    """The vector selectors of ``expression``. Raises ``ValueError`` if it is not PromQL."""
    return [
        Selector(node.name or "", {one.name: one.value for one in node.matchers.matchers})
        for node in _nodes(promql.parse(expression))
        if isinstance(node, promql.VectorSelector)
    ]


def grouped(expression: str) -> set[str]:
    """The labels that aggregations and joins in ``expression`` name."""
    return {
        word.strip()
        for names in re.findall(r"\b(?:by|on|group_left|group_right)\s*\(([^)]*)\)", expression)
        for word in names.split(",")
        if word.strip()
    }


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param", "args"):
        below = getattr(node, name, None)
        for one in below if isinstance(below, list | tuple) else [below]:
            if isinstance(one, promql.Expr):
                yield from _nodes(one)


def declared() -> dict[str, set[str]]:
    """Every sample name of ``/metrics`` by the declarations, and its labels."""
    found: dict[str, set[str]] = {}
    for part in Meters().instruments():
        labels = {plain_name(label) for label in part.labels}
        found |= dict.fromkeys(samples(part), labels)
    return found


def program(name: str) -> str:
    """A program of Prometheus; skips the test if it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NO {name.upper()} HERE: install Debian's package prometheus")
    return found
