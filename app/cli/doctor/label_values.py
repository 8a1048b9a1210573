"""What rules and dashboards compare labels with: a value that is never counted makes a rule that never speaks."""

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
"""By the name of a sample and of its label: all values that there can be. Labels with any other values are not here."""


def known_values() -> LabelValues:
    """The values that the instruments of this program declare, the bounds of buckets among them."""
    found: LabelValues = {}
    for part in (*Meters().instruments(), *Meters(latest=True).instruments()):
        closed = {plain_name(label): (*label.values, OVERFLOW) for label in part.labels if isinstance(label, EnumLabel)}
        for name in samples(part):
            found[name] = dict(closed)
            if isinstance(part, Histogram) and name.endswith("_bucket"):
                found[name]["le"] = (*ends(part),)
    return found


def unknown_values(expression: str, values: LabelValues) -> list[str]:
    """A sentence for each value in ``expression`` (PromQL, or a text that has some) that its label never has.

    Of a pattern each alternative must fit a value; a dashboard's variables (``$name``) fit any.
    """
    found = []
    for name, inside in _SELECTOR.findall(expression):
        for label, how, quoted in _MATCHER.findall(inside):
            there = values.get(name, {}).get(label)
            if there is None:
                continue
            wanted = quoted[1:-1]
            for part in _alternatives(wanted) if "~" in how else [re.escape(wanted)]:
                if "$" not in wanted and not any(re.fullmatch(part, value) for value in there):
                    has = f": it is one of {', '.join(map(repr, there))}" if len(there) < MAX_LISTED else ""
                    found.append(f"{name} has no {label} {wanted!r}{has}")
    return list(dict.fromkeys(found))


def _alternatives(pattern: str) -> list[str]:
    """What stands between the bars of a pattern; the whole of one that is more than that."""
    return [pattern] if "(" in pattern or "[" in pattern else pattern.split("|")


def expressions(place: Path) -> Iterator[str]:
    """What the file asks for: the queries of a dashboard (.json), or rules as they are written."""
    text = place.read_text("utf-8")
    if place.suffix != ".json":
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
