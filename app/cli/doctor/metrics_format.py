"""Validate a metrics page: Prometheus' text format, or OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABELS = r'\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\}'
_SAMPLE = re.compile(rf"({NAME})(?:{_LABELS})? (\S+)(?: -?[0-9.]+)?(?: # {_LABELS} (\S+)(?: [0-9.]+)?)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
_TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped|unknown|info|stateset|gaugehistogram)")
_COMMENT = re.compile(rf"# (?:HELP {NAME} .*|HELP {NAME}|UNIT {NAME} \S+|EOF)")
EXEMPLAR_SUFFIXES = ("_bucket", "_total")
"""Suffixes of samples that may have exemplars."""
NAME_SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created", "_info")


class ParsedMetrics:
    """A parsed metrics page: ``faults`` has a message per error, ``families`` the type of each family."""

    def __init__(self, text: str, *, openmetrics: bool) -> None:
        self.faults: list[str] = []
        self.series = 0
        self.families: dict[str, str] = {}
        self._seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        self._openmetrics = openmetrics
        lines = text.split("\n")
        if lines[-1] != "":
            self.faults.append("the last line is not terminated")
        if openmetrics and lines[-2:] != ["# EOF", ""]:
            self.faults.append("# EOF is missing")
        for number, line in enumerate(lines, 1):
            if line and (fault := self._read(line)):
                self.faults.append(f"line {number}: {fault}")

    def _read(self, line: str) -> str:
        if line.startswith("#"):
            if (kind := _TYPE.fullmatch(line)) is None:
                return "" if _COMMENT.fullmatch(line) else f"malformed comment: {line[:60]}"
            if kind[1] in self.families:
                return f"{kind[1]} has two types"
            self.families[kind[1]] = kind[2]
            return ""
        sample = _SAMPLE.fullmatch(line)
        if sample is None:
            return f"malformed sample: {line[:60]}"
        name, given, value, exemplar, measured = sample.groups()
        labels = self._labels(given or "")
        if labels is None or self._labels(exemplar or "") is None:
            return f"malformed labels: {line[:60]}"
        if exemplar is not None and not (self._openmetrics and name.endswith(EXEMPLAR_SUFFIXES)):
            return f"exemplar not allowed here: {line[:60]}"
        for number in filter(None, (value, measured)):
            try:
                float(number)
            except ValueError:
                return f"not a number: {number}"
        if (name, labels) in self._seen:
            return f"duplicate series: {line[:60]}"
        self._seen.add((name, labels))
        self.series += 1
        if not any(family in self.families for family in (name, *(name.removesuffix(one) for one in NAME_SUFFIXES))):
            return f"{name} has no type"
        return ""

    @staticmethod
    def _labels(text: str) -> tuple[tuple[str, str], ...] | None:
        found, at = [], 0
        while at < len(text):
            label = _LABEL.match(text, at)
            if label is None:
                return None
            found.append((label[1], label[2]))
            at = label.end()
        return tuple(sorted(found)) if len({name for name, _ in found}) == len(found) else None
