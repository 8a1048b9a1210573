"""The arguments of a tool call: JSON text from outside, decoded with care."""

import re
from typing import Any

import msgspec

DEEPEST = 64
"""Levels of nesting. Deeper JSON has no honest use here and can exhaust the stack of whoever reads it."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``; no text at all is an empty one. Raises ``ValueError`` that says what is wrong."""
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise ValueError(f"the arguments nest deeper than {DEEPEST} levels")
    try:
        value = msgspec.json.decode(text.strip() or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"the arguments are not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the arguments are not a JSON object")  # noqa: TRY004  the text is at fault, no caller
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
