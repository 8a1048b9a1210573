"""The description of a tool and of its parameters, from the docstring of its function."""

import inspect
from typing import NamedTuple

from docstring_parser import Docstring, ParseError, parse


class ParsedDocstring(NamedTuple):
    """The first paragraph as one line, and a line for each described parameter."""

    summary: str
    parameters: dict[str, str]


def describe(docstring: str | None) -> ParsedDocstring:
    """Parse ``docstring`` in Google, NumPy, Sphinx or Epydoc style; text in none of them describes no parameter."""
    try:
        parsed = parse(docstring)
    except (ParseError, IndexError):  # docstring-parser 0.18 raises IndexError for `::` on a line before another colon
        parsed = Docstring()
    summary, _, _ = (parsed.description or inspect.cleandoc(docstring or "")).partition("\n\n")
    found = {
        name.strip().lstrip("*"): _line(one.description)
        for one in parsed.params
        if one.description
        for name in one.arg_name.split(",")  # NumPy's style describes several at once
    }
    return ParsedDocstring(_line(summary), found)


def _line(text: str) -> str:
    return " ".join(text.split())
