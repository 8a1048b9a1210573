"""Extract the indexed texts of a value by field paths. Pure.

``$`` is the whole value; ``a.b`` a nested field; ``items[0]``, ``items[-1]`` and ``items[*]`` are elements. Each text
has its own vector.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from app.base.errors import Invalid

WHOLE = "$"
MAX_FIELDS = 32
MAX_TEXTS = 16
"""The first texts of an item, which get a vector."""
MAX_INDEXED_CHARACTERS = 100_000
"""Characters of an item that full text search indexes."""
MAX_PATH_LENGTH = 200

_PART = re.compile(r"([^.\[\]]+)|\[(-?\d{1,9}|\*)\]")
_FIELD = re.compile(r"\$|[^.\[\]]+(?:\[(?:-?\d{1,9}|\*)\])*(?:\.[^.\[\]]+(?:\[(?:-?\d{1,9}|\*)\])*)*")


def check_fields(fields: Sequence[str]) -> None:
    """Raise ``Invalid`` if a field path is invalid."""
    if len(fields) > MAX_FIELDS:
        raise Invalid(f"`index` has more than {MAX_FIELDS} fields.", (("/index", "too many"),))
    for number, field in enumerate(fields):
        if len(field) > MAX_PATH_LENGTH or not _FIELD.fullmatch(field):
            shown = field if len(field) <= 100 else f"{field[:100]}…"
            raise Invalid(
                f"`index` has the field {shown!r}: write it like title, meta.title, parts[0], parts[*].text or $.",
                ((f"/index/{number}", "invalid field"),),
            )


def texts_of(value: dict[str, Any], fields: Sequence[str]) -> list[str]:
    """Return the texts of ``fields``, in order, without missing and empty ones."""
    found: list[str] = []
    for field in fields:
        if field == WHOLE:
            found.append("\n".join(_lines(value, "")))
        else:
            found += ["\n".join(_lines(match, "")) for match in _resolve(value, field.removeprefix(f"{WHOLE}."))]
    return [text for text in found if text.strip()]


def words_of(texts: Sequence[str]) -> str | None:
    """Return the text for full text search, None if it is empty."""
    return "\n".join(texts)[:MAX_INDEXED_CHARACTERS] or None


def _resolve(value: Any, field: str) -> list[Any]:
    """Return the values at a field path."""
    found = [value]
    for match in _PART.finditer(field):
        name, number = match.groups()
        if name is not None:
            found = [one[name] for one in found if isinstance(one, dict) and name in one]
        elif number == "*":
            found = [element for one in found if isinstance(one, list) for element in one]
        else:
            at = int(number)
            found = [one[at] for one in found if isinstance(one, list) and -len(one) <= at < len(one)]
    return found


def _lines(value: Any, name: str) -> Iterator[str]:
    """Yield one line for each leaf of ``value``, prefixed with the name of its field."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, name)
    elif value is not None and value != "":
        text = value if isinstance(value, str) else str(value).lower()
        yield f"{name}: {text}" if name else text
