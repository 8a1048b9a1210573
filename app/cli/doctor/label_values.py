"""Find label values in rules and dashboards that are never counted: such a rule never fires."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from app.infra.telemetry.instruments import OVERFLOW, Histogram
from app.infra.telemetry.labels import EnumLabel
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.prometheus_page import ends, plain_name, samples

_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_SELECTOR = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{{((?:[^{{}}\"']|{_QUOTED})*)\}}")
_MATCHER = re.compile(rf"([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*({_QUOTED})")

MAX_LISTED = 20

LabelValues = dict[str, dict[str, tuple[str, ...]]]
"""All possible values by sample and label name; labels with open sets of values are left out."""


def known_values() -> LabelValues:
    """Return the label values that the instruments declare, including bucket bounds."""
    found: LabelValues = {}
    for part in (*Meters().instruments(), *Meters(latest=True).instruments()):
        closed = {plain_name(label): (*label.values, OVERFLOW) for label in part.labels if isinstance(label, EnumLabel)}
        for name in samples(part):
            found[name] = dict(closed)
            if isinstance(part, Histogram) and name.endswith("_bucket"):
                found[name]["le"] = (*ends(part),)
    return found


def unknown_values(expression: str, values: LabelValues) -> list[str]:
    """Return a message for each value in ``expression`` (PromQL, or text with it) that its label never has.

    Each alternative of a pattern must match a value; dashboard variables (``$name``) match any.
    """
    found = []
    for name, inside in _SELECTOR.findall(expression):
        for label, how, quoted in _MATCHER.findall(inside):
            allowed = values.get(name, {}).get(label)
            if allowed is None:
                continue
            wanted = quoted[1:-1]
            for part in _alternatives(wanted) if "~" in how else [re.escape(wanted)]:
                if "$" not in wanted and not any(re.fullmatch(part, value) for value in allowed):
                    has = f": it is one of {', '.join(map(repr, allowed))}" if len(allowed) < MAX_LISTED else ""
                    found.append(f"{name} has no {label} {wanted!r}{has}")
    return list(dict.fromkeys(found))


def _alternatives(pattern: str) -> list[str]:
    """Split a pattern at its bars; return it whole if it has groups or classes."""
    return [pattern] if "(" in pattern or "[" in pattern else pattern.split("|")


def expressions(path: Path) -> Iterator[str]:
    """Yield the queries of a dashboard (.json), or the text of a rules file."""
    text = path.read_text("utf-8")
    if path.suffix != ".json":
        yield re.sub(r"(?m)^\s*#.*$", "", text).replace('\\"', '"')
        return
    left = [json.loads(text)]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left += node.values()
            if isinstance(node.get("expr"), str):
                yield node["expr"]
        elif isinstance(node, list):
            left += node
