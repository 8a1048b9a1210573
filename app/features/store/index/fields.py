"""What of a value is looked at by searches with a ``query``: fields → texts. Pure.

``$`` is the whole value; ``a.b`` a field of a field; ``items[0]``, ``items[-1]`` and ``items[*]`` are elements. Each
text has a vector of its own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from app.base.errors import Invalid

WHOLE = "$"
MAX_FIELDS = 32
MAX_TEXTS = 16
"""Texts of one item that get a vector; the first ones do."""
MAX_INDEXED_CHARACTERS = 100_000
"""Characters of one item that the full text search looks at."""
MAX_PATH_LENGTH = 200

_PART = re.compile(r"([^.\[\]]+)|\[(-?\d{1,9}|\*)\]")
_FIELD = re.compile(r"\$|[^.\[\]]+(?:\[(?:-?\d{1,9}|\*)\])*(?:\.[^.\[\]]+(?:\[(?:-?\d{1,9}|\*)\])*)*")


def check_fields(fields: Sequence[str]) -> None:
    """Raises ``Invalid`` for a field that cannot be read."""
    if len(fields) > MAX_FIELDS:
        raise Invalid(f"`index` has more than {MAX_FIELDS} fields.", (("/index", "too many"),))
    for number, field in enumerate(fields):
        if len(field) > MAX_PATH_LENGTH or not _FIELD.fullmatch(field):
            shown = field if len(field) <= 100 else f"{field[:100]}…"
            raise Invalid(
                f"`index` has the field {shown!r}: write it like title, meta.title, parts[0], parts[*].text or $.",
                ((f"/index/{number}", "no field"),),
            )


def texts_of(value: dict[str, Any], fields: Sequence[str]) -> list[str]:
    """The texts that ``fields`` name, in their order; what is not there or empty is left out."""
    found: list[str] = []
    for field in fields:
        if field == WHOLE:
            found.append("\n".join(_lines(value, "")))
        else:
            found += ["\n".join(_lines(place, "")) for place in _places(value, field.removeprefix(f"{WHOLE}."))]
    return [text for text in found if text.strip()]


def words_of(texts: Sequence[str]) -> str | None:
    """The text for the full text search; None where there is none."""
    return "\n".join(texts)[:MAX_INDEXED_CHARACTERS] or None


def _places(value: Any, field: str) -> list[Any]:
    places = [value]
    for match in _PART.finditer(field):
        name, number = match.groups()
        if name is not None:
            places = [place[name] for place in places if isinstance(place, dict) and name in place]
        elif number == "*":
            places = [element for place in places if isinstance(place, list) for element in place]
        else:
            at = int(number)
            places = [place[at] for place in places if isinstance(place, list) and -len(place) <= at < len(place)]
    return places


def _lines(value: Any, name: str) -> Iterator[str]:
    """What a person would read of ``value``: a line a leaf, behind the name of its field."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, name)
    elif value is not None and value != "":
        text = value if isinstance(value, str) else str(value).lower()
        yield f"{name}: {text}" if name else text
