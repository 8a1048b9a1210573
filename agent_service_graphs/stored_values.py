"""A thread's values as the engine stores them, with elements of its lists that an earlier run has decoded already."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import orjson

from agent_service_graphs.projection import EXACT_CLASSES, restored_message, value_of

JSON, MESSAGES, TYPED = "j", "m", "x"
"""How a channel is stored: plain JSON, a list of messages, or (also) in its exact form."""

Change = list[Any] | None
"""``["v", JSON]`` (the value), ``["s", keep, [JSON, …]]`` (keep the first elements of the list, then these) or None
(remove it)."""

ELEMENT_BYTES = 2600
"""Memory of a decoded message in addition to its JSON, as measured with messages of a model."""
VALUE_BYTES = 200


BLOCK = 64
"""Elements of a list that are compared with their JSON at once."""

_fields_of = operator.attrgetter("__dict__")
_extra_of = operator.attrgetter("__pydantic_extra__")


class DecodedList:
    """Elements of a list of the kind ``JSON`` or ``MESSAGES`` that were decoded, in blocks with their JSON.

    Runs share the elements and may change them in place. So the elements are compared with their JSON whenever they
    are used, and those that differ are decoded again. The last ones, which fill no block, are always decoded.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._blocks: list[tuple[bytes, list[Any]]] = []

    def __len__(self) -> int:
        return BLOCK * len(self._blocks)

    def cut(self, keep: int) -> None:
        """Forget the elements behind the first ``keep``."""
        del self._blocks[keep // BLOCK :]

    def elements(self, stored: list[bytes]) -> list[Any]:
        """Return the elements of the list, whose JSON is ``stored``."""
        decode = _message if self.kind == MESSAGES else value_of
        found: list[Any] = []
        for at, (text, elements) in enumerate(self._blocks):
            if not _is_json_of(text, elements, self.kind):
                elements[:] = map(decode, stored[at * BLOCK : (at + 1) * BLOCK])
            found += elements
        for at in range(len(found), len(stored), BLOCK):
            block = stored[at : at + BLOCK]
            elements = list(map(decode, block))
            if len(block) == BLOCK:
                self._blocks.append((_joined(block), elements))
            found += elements
        return found


class StoredValues(dict[str, Any]):
    """The values by name: JSON, or a list of JSON."""

    def __init__(self, values: Mapping[str, Any] = {}) -> None:
        super().__init__(values)
        self._decoded: dict[str, DecodedList] = {}

    def apply(self, changes: Mapping[str, Change]) -> None:
        """Make ``changes``."""
        for name, change in changes.items():
            keep = 0
            if change is None:
                self.pop(name, None)
            elif change[0] == "v":
                self[name] = change[1]
            else:
                _, keep, added = change
                before = self.get(name)
                self[name] = [*before[:keep], *added] if isinstance(before, list) else list(added)
            if name in self._decoded:
                self._decoded[name].cut(keep)

    def elements(self, name: str, kind: str) -> list[Any]:
        """Return the elements of the list ``name``, which is stored as ``kind``: ``JSON`` or ``MESSAGES``."""
        known = self._decoded.get(name)
        if known is None or known.kind != kind:
            known = self._decoded[name] = DecodedList(kind)
        return known.elements(self[name])

    def memory(self) -> int:
        """Estimate the memory of the values and of what is decoded, in bytes."""
        found = 0
        for name, stored in self.items():
            many = isinstance(stored, list)
            size = sum(map(len, stored)) if many else len(stored)
            decoded = len(self._decoded[name]) if name in self._decoded else 0
            found += VALUE_BYTES + size + (60 * len(stored) if many else 0)
            found += decoded * ELEMENT_BYTES + (2 * size if decoded else 0)
        return found


def _message(stored: bytes) -> Any:
    return restored_message(value_of(stored))


def _joined(stored: list[bytes]) -> bytes:
    return b"[" + b",".join(stored) + b"]"


def _is_json_of(text: bytes, elements: list[Any], kind: str) -> bool:
    if kind == MESSAGES:
        if not EXACT_CLASSES.issuperset(map(type, elements)) or any(map(_extra_of, elements)):
            return False
        elements = list(map(_fields_of, elements))
    try:
        return orjson.dumps(elements) == text
    except TypeError:  # what has been put into them is not even JSON
        return False
