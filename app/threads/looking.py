"""Looking into values: does an object contain another, and what is at a path."""

import re
from typing import Any

from app.base.errors import Invalid

MOST_PATHS = 10
_ROOTS = ("values", "metadata", "interrupts", "error", "config")
_PART = re.compile(r"\.?([A-Za-z0-9_-]+)|\[(-?[0-9]{1,9})\]")

Path = list[str | int]


def contains(value: Any, wanted: Any) -> bool:
    """Whether ``value`` contains ``wanted``, as PostgreSQL's ``@>`` on jsonb does.

    An object contains one whose members it has; a list one whose elements it has in any order; others are equal.
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(k in value and contains(value[k], w) for k, w in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(one, w) for one in value) for w in wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def read_paths(extract: dict[str, str]) -> dict[str, Path]:
    """Alias → path. Raises ``Invalid`` for more than ten, or for one like no ``values.messages[-1].content``."""
    if len(extract) > MOST_PATHS:
        raise Invalid(f"extract has at most {MOST_PATHS} paths.", (("/extract", "too many"),))
    return {alias: _path(alias, text) for alias, text in extract.items()}


def _path(alias: str, text: str) -> Path:
    path: Path = []
    place = 0
    while place < len(text):
        match = _PART.match(text, place)
        if match is None:
            break
        path.append(match[1] if match[1] is not None else int(match[2]))
        place = match.end()
    if place < len(text) or not path or path[0] not in _ROOTS:
        pointer = "/extract/" + alias.replace("~", "~0").replace("/", "~1")
        raise Invalid(
            f"{text[:100]!r} is no path: begin with one of {', '.join(_ROOTS)} and go on like values.messages[-1].",
            ((pointer, "is no path"),),
        )
    return path


def at(value: Any, path: Path) -> Any:
    """What is at ``path`` in ``value``; None where nothing is."""
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list) or not -len(value) <= part < len(value):
                return None
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
