"""Parse docstrings in Google, NumPy and Sphinx style: the summary and the descriptions of parameters."""

import inspect
import itertools
import re
from typing import NamedTuple

GOOGLE_HEADS = {"Args:", "Arguments:", "Parameters:", "Params:", "Keyword Args:", "Keyword Arguments:"}
NUMPY_HEADS = {"Parameters", "Other Parameters"}

_SPHINX = re.compile(r":(?:param|parameter|arg|argument|keyword)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*))?$")
_NUMPY = re.compile(r"\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*(?=\s*(?::|$))")


class ParsedDocstring(NamedTuple):
    """The first paragraph as one line, and a line for each described parameter."""

    summary: str
    parameters: dict[str, str]


def describe(docstring: str | None) -> ParsedDocstring:
    """Parse ``docstring``; text in none of the three styles is ignored."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    reader = _DocstringParser()
    summary: list[str] = []
    summing = True
    for line, following in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        reader.take(line, following.strip())
        summing = summing and bool(line.strip()) and not reader.section
        if summing:
            summary.append(line.strip())
    found = {name: " ".join(" ".join(words).split()) for name, words in reader.found.items()}
    return ParsedDocstring(" ".join(summary), {name: text for name, text in found.items() if text})


class _DocstringParser:
    """Line parser; ``section`` is the style of the current section, empty outside of arguments."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.section = ""
        self._depth = 0
        self._into: list[str] = []

    def take(self, line: str, following: str) -> None:
        text = line.strip()
        if not text:
            return
        depth = len(line) - len(line.lstrip())
        if depth:
            self._indented(text, depth)
        elif match := _SPHINX.match(text):
            self.section = "sphinx"
            self._begin([match[1]], match[2])
        elif text in GOOGLE_HEADS:
            self._open("google")
        elif following and set(following) == {"-"}:
            self._open("numpy" if text in NUMPY_HEADS else "")
        elif self.section == "numpy":
            if match := _NUMPY.match(text):
                self._begin(re.findall(r"\w+", match[0]), "")
        else:
            self._open("")

    def _indented(self, text: str, depth: int) -> None:
        if self.section == "google":
            self._depth = self._depth or depth
            if depth == self._depth and (match := _GOOGLE.match(text)):
                self._begin([match[1]], match[2] or "")
                return
        self._into.append(text)

    def _open(self, section: str) -> None:
        self.section, self._depth, self._into = section, 0, []

    def _begin(self, names: list[str], text: str) -> None:
        self._into = [text]
        self.found |= dict.fromkeys(names, self._into)
