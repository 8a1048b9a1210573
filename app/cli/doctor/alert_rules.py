"""Checks of Prometheus rules: they load, and their metrics and label values exist."""

import re
import shutil
from pathlib import Path

from app.base.errors import UsageError
from app.cli.doctor.checklist import Checklist, CheckUnavailable
from app.cli.doctor.deployment import DeployedServer
from app.cli.doctor.external_programs import run_command
from app.cli.doctor.metrics_format import NAME_SUFFIXES, ParsedMetrics

METRIC_NAMES = re.compile(r"(?<![A-Za-z0-9_:])(?:agent|http_server|gen_ai|db_client|process)_[a-z0-9_]+")
"""Matches names of this program's metrics in an expression."""


def load(checklist: Checklist, paths: list[Path]) -> None:
    """Check that each rules file loads."""
    if not paths:
        checklist.omit("alerts", "rules load", "no --rules, and no deploy/prometheus here")
    for path in paths:
        if not path.is_file():
            raise UsageError(f"--rules {path} is not a file")
        if shutil.which("promtool"):
            command = ["promtool", "check", "rules", str(path)]
            checklist.check("alerts", "rules load", " ".join(command), "SUCCESS", lambda c=command: run_command(c, 60))  # type: ignore[misc]
        else:
            expected = "groups of rules, each with an expression (promtool is not installed: checked as YAML only)"
            command = [f"promtool check rules {path}"]
            checklist.check("alerts", "rules load", command[0], expected, lambda p=path: _read(p))  # type: ignore[misc]


def _read(path: Path) -> tuple[bool, str]:
    try:
        import yaml
    except ImportError:
        raise CheckUnavailable("neither promtool nor PyYAML is installed") from None
    try:
        groups = (yaml.safe_load(path.read_text("utf-8")) or {})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        broken = [str(rule) for rule in rules if not rule.get("expr") or not (rule.get("alert") or rule.get("record"))]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        return False, f"not a rules file ({type(error).__name__})"
    if broken or not rules:
        return False, f"not a valid rule: {broken[0]}" if broken else "no rules"
    return True, f"{len(rules)} rules"


def known(checklist: Checklist, paths: list[Path], metrics: DeployedServer) -> None:
    """Check that every metric in the rules is exposed, even if nothing is counted yet."""

    def evaluate() -> tuple[bool, str]:
        families = ParsedMetrics(metrics.request("/metrics", accept="text/plain").text, openmetrics=False).families
        asked: set[str] = set()
        for path in paths:
            text = re.sub(r"(?m)#.*$|^\s*(?:-\s*)?(?:alert|record|name):.*$", "", path.read_text("utf-8"))
            asked |= set(
                METRIC_NAMES.findall(re.sub(r"\{[^}]*\}|\b(?:by|on|ignoring|without|group_left)\s*\([^)]*\)", "", text))
            )
        missing = {name for name in asked if not any(one in families for one in _families(name))}
        return (
            not missing,
            f"not exposed: {', '.join(sorted(missing))}" if missing else f"{len(asked)} names, all exposed",
        )

    command = f"{metrics.curl('/metrics')} | grep '^# TYPE'"
    checklist.check("alerts", "metrics known", command, "every metric of the rules", evaluate)


def values(checklist: Checklist, paths: list[Path]) -> None:
    """Check the label values in rules and dashboards."""
    from app.cli.doctor.label_values import expressions, known_values, unknown_values

    def evaluate() -> tuple[bool, str]:
        declared = known_values()
        wrong = [
            f"{path.name}: {one}"
            for path in paths
            for text in expressions(path)
            for one in unknown_values(text, declared)
        ]
        return not wrong, "; ".join(wrong) or "all are known"

    command = f"grep -Eo '[a-z_]+[{{][^}}]+[}}]' {' '.join(map(str, paths))}"
    checklist.check(
        "alerts", "label values known", command, "values that the program counts (docs/reference/metrics.md)", evaluate
    )


def _families(name: str) -> list[str]:
    return [name, *(name.removesuffix(ending) for ending in NAME_SUFFIXES if name.endswith(ending))]
