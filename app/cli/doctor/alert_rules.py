"""Rows about the rules of Prometheus: they load, and what they ask for is measured."""

import re
import shutil
from pathlib import Path

from app.base.errors import UsageError
from app.cli.doctor.checklist import Checklist, CheckUnavailable
from app.cli.doctor.deployment import DeployedServer
from app.cli.doctor.external_programs import ran
from app.cli.doctor.metrics_format import ENDINGS, ParsedMetrics

OURS = re.compile(r"(?<![A-Za-z0-9_:])(?:agent|http_server|gen_ai|db_client|process)_[a-z0-9_]+")
"""Names of metrics of ours in an expression."""


def load(sheet: Checklist, places: list[Path]) -> None:
    """A row for each file of rules."""
    if not places:
        sheet.leave("alerts", "rules load", "no --rules, and no deploy/prometheus here")
    for place in places:
        if not place.is_file():
            raise UsageError(f"--rules {place} is no file")
        if shutil.which("promtool"):
            command = ["promtool", "check", "rules", str(place)]
            sheet.ask("alerts", "rules load", " ".join(command), "SUCCESS", lambda c=command: ran(c, 60))  # type: ignore[misc]
        else:
            expected = "groups of rules, each with an expression (promtool is not installed: read as YAML alone)"
            command = [f"promtool check rules {place}"]
            sheet.ask("alerts", "rules load", command[0], expected, lambda p=place: _read(p))  # type: ignore[misc]


def _read(place: Path) -> tuple[bool, str]:
    try:
        import yaml
    except ImportError:
        raise CheckUnavailable("neither promtool nor PyYAML is installed") from None
    try:
        groups = (yaml.safe_load(place.read_text("utf-8")) or {})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        broken = [str(rule) for rule in rules if not rule.get("expr") or not (rule.get("alert") or rule.get("record"))]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        return False, f"no file of rules ({type(error).__name__})"
    if broken or not rules:
        return False, f"no rule: {broken[0]}" if broken else "no rules"
    return True, f"{len(rules)} rules"


def known(sheet: Checklist, places: list[Path], metrics: DeployedServer) -> None:
    """The row about the names in the rules: each must be on the page of metrics, even if nothing is counted yet."""

    def look() -> tuple[bool, str]:
        families = ParsedMetrics(metrics.ask("/metrics", accept="text/plain").text, openmetrics=False).families
        asked: set[str] = set()
        for place in places:
            text = re.sub(r"(?m)#.*$|^\s*(?:-\s*)?(?:alert|record|name):.*$", "", place.read_text("utf-8"))
            asked |= set(
                OURS.findall(re.sub(r"\{[^}]*\}|\b(?:by|on|ignoring|without|group_left)\s*\([^)]*\)", "", text))
            )
        lacking = {name for name in asked if not any(one in families for one in _families(name))}
        return not lacking, f"not there: {', '.join(sorted(lacking))}" if lacking else f"{len(asked)} names, all there"

    command = f"{metrics.curl('/metrics')} | grep '^# TYPE'"
    sheet.ask("alerts", "metrics known", command, "every metric of the rules", look)


def values(sheet: Checklist, places: list[Path]) -> None:
    """The row about the values that labels are compared with in rules and dashboards."""
    from app.cli.doctor.label_values import expressions, known_values, unknown_values

    def look() -> tuple[bool, str]:
        declared = known_values()
        wrong = [
            f"{place.name}: {one}"
            for place in places
            for text in expressions(place)
            for one in unknown_values(text, declared)
        ]
        return not wrong, "; ".join(wrong) or "all of them are counted"

    command = f"grep -Eo '[a-z_]+[{{][^}}]+[}}]' {' '.join(map(str, places))}"
    sheet.ask(
        "alerts", "label values known", command, "values that the program counts (docs/reference/metrics.md)", look
    )


def _families(name: str) -> list[str]:
    return [name, *(name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending))]
