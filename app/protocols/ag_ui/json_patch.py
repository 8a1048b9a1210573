"""Changes of a JSON value as a patch: RFC 6902, with JSON pointers of RFC 6901."""

from collections.abc import Iterator
from typing import Any

Operation = dict[str, Any]


def diff(old: Any, new: Any, at: str = "") -> Iterator[Operation]:
    """Yield the operations that turn ``old`` into ``new``, at the pointer ``at``.

    Objects are compared member by member, and a list that has grown gets its new elements; what differs otherwise is
    replaced.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _members(old, new, at)
    elif isinstance(old, list) and isinstance(new, list) and len(new) > len(old) and _equal(new[: len(old)], old):
        for element in new[len(old) :]:
            yield {"op": "add", "path": f"{at}/-", "value": element}
    elif not _equal(old, new):
        yield {"op": "replace", "path": at, "value": new}


def _members(old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[Operation]:
    for name in old:
        if name not in new:
            yield {"op": "remove", "path": f"{at}/{escaped(name)}"}
    for name, value in new.items():
        path = f"{at}/{escaped(name)}"
        if name in old:
            yield from diff(old[name], value, path)
        else:
            yield {"op": "add", "path": path, "value": value}


def escaped(name: str) -> str:
    """Return ``name`` as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _equal(old: Any, new: Any) -> bool:
    """Compare as JSON does: unlike in Python, ``1`` is not ``true``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_equal(value, new[name]) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    return isinstance(old, bool) == isinstance(new, bool) and bool(old == new)
