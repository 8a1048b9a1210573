"""Looking into values: does an object contain another, and what is at a path."""

import re
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.checkpoints.snapshot import read, size_of
from app.domain.state import ListChannel, ValueChannel, shown

MOST_PATHS = 10
MAX_COMPARISONS = 1_000_000
MAX_BYTES = 64 * 1024 * 1024
"""What one search may compare, and the bytes of the states that it may look into: some tenths of a second."""
_ROOTS = ("values", "metadata", "interrupts", "error", "config")
_PART = re.compile(r"\.?([A-Za-z0-9_-]+)|\[(-?[0-9]{1,9})\]")

Path = list[str | int]


class Match:
    """Finds the states that contain ``wanted``, within a budget of comparisons and of bytes.

    An object contains one whose members it has; a list one whose elements it has in any order; others are equal: as
    PostgreSQL's ``@>`` on jsonb has it.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._comparisons = 0
        self._bytes = 0

    def look_into(self, row: Any) -> bool:
        """Whether the latest state in ``row`` (as ``app.checkpoints.snapshot.read`` takes it) contains it.

        Raises ``Invalid`` once all states looked into were too much.
        """
        if row.head is None:
            return False
        self._bytes += size_of(row)
        if self._bytes > MAX_BYTES:
            raise _too_much()
        channels = shown(read(row, row.last_number).state.channels)
        return all(name in channels and self.contains(_decoded(channels[name]), w) for name, w in self._wanted.items())

    def contains(self, value: Any, wanted: Any) -> bool:
        """Whether ``value`` contains ``wanted``. Raises as ``look_into`` does."""
        self._count(1)
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                return False
            return all(k in value and self.contains(value[k], w) for k, w in wanted.items())
        if isinstance(wanted, list):
            return isinstance(value, list) and self._contains_all(value, wanted)
        return type(value) is type(wanted) and bool(value == wanted)

    def _contains_all(self, value: list[Any], wanted: list[Any]) -> bool:
        self._count(len(value) + len(wanted))
        plain = {(type(one), one) for one in value if not isinstance(one, dict | list)}
        nested = [one for one in value if isinstance(one, dict | list)]
        for one in wanted:
            if not isinstance(one, dict | list):
                if (type(one), one) not in plain:
                    return False
            elif not any(self.contains(other, one) for other in nested):
                return False
        return True

    def _count(self, comparisons: int) -> None:
        self._comparisons += comparisons
        if self._comparisons > MAX_COMPARISONS:
            raise _too_much()


def _decoded(channel: ListChannel | ValueChannel) -> Any:
    """Element by element: no call takes long."""
    if isinstance(channel, ListChannel):
        return [msgspec.json.decode(element) for element in channel.elements]
    return msgspec.json.decode(channel.value)


def _too_much() -> Invalid:
    return Invalid(
        "The values of these threads are too much to look into: narrow the search by metadata, status or ids.",
        (("/values", "too much to compare"),),
    )


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
