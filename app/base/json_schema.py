"""Check values by JSON Schemas that users, graphs and other servers bring, in bounded time.

References never leave the schema, and no pattern backtracks for long. A few nested ``anyOf`` or references can make a
validator visit one value millions of times, so the visits are counted before a value is checked (``_Visits``).
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

import jsonschema_rs

MAX_SUBSCHEMAS = 5_000
MAX_VISITS_OF_ONE = 10_000
"""Visits of one value: a schema that may need more for a value that is nested ``FORESEEN_DEPTH`` deep is refused."""
FORESEEN_DEPTH = 4
MAX_VISITS = 500_000
"""Visits of a value and everything in it; a tenth of a second at most."""
MAX_EXPLAINED_VISITS = 2_000
"""Beyond it a value is only said not to fit: an explanation costs a hundred times as much as the check."""
MAX_REPETITIONS = 64
"""Patterns with counted repetitions, such as ``{1,64}``: each can take 50 ms to compile."""
CHARACTERS = 64
"""Characters of a text that cost as much as a visit."""
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1 << 23)

TOO_COSTLY = "it takes too long to check: use fewer nested anyOf, oneOf, allOf and $ref"
_SAME = ("allOf", "anyOf", "oneOf"), ("dependentSchemas", "dependencies"), ("not", "if", "then", "else")
_CHILD = ("properties", "patternProperties"), ("additionalProperties", "propertyNames", "contains", "additionalItems")


class Problem(NamedTuple):
    """Why a value does not fit: where in it, and a sentence."""

    path: tuple[str | int, ...]
    message: str


class JsonSchema:
    """A compiled schema (2020-12 unless ``$schema`` names another draft).

    A ``$ref`` to a file or to another host is an error: it is never read. Raises ``ValueError`` with one line.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._visits = _Visits(schema)
        if max(self._visits.of_one(depth) for depth in range(FORESEEN_DEPTH)) > MAX_VISITS_OF_ONE:
            raise ValueError(TOO_COSTLY)
        try:
            self._validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
        except ValueError as error:
            raise ValueError(str(error).partition("\n")[0]) from error

    def problems(self, value: Any, limit: int = 1) -> list[Problem]:
        """Return up to ``limit`` reasons why ``value`` does not fit; none if it does."""
        visits = self._visits.of(value)
        if visits > MAX_VISITS:
            return [Problem((), "is too large, or nested too deeply, to be checked by its schema")]
        if self._validator.is_valid(value):
            return []
        if visits > MAX_EXPLAINED_VISITS:
            return [Problem((), "does not fit the schema")]
        errors = islice(self._validator.iter_errors(value), limit)
        return [Problem(tuple(error.instance_path), error.message) for error in errors]


class _Visits:
    """How often at most the validator visits a value: by level, as schemas in one place apply to the same value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._places = _Resources(schema)
        self._schemas: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._same: list[list[int]] = []
        self._children: list[list[list[int]]] = []
        self._number(schema)
        for at, one in enumerate(self._schemas):  # grows while it is read
            if at >= MAX_SUBSCHEMAS:
                raise ValueError(f"it has more than {MAX_SUBSCHEMAS:,} schemas")
            twice = 2 if isinstance(one, dict) and any(name.startswith("unevaluated") for name in one) else 1
            same = [self._number(sub) for sub in self._in_place(one)]
            self._same.append(same * twice)
            self._children.append([[self._number(sub) for sub in group] for group in _children_of(one)])
        if sum(map(_repetitions, self._schemas)) > MAX_REPETITIONS:
            raise ValueError(f"it has more than {MAX_REPETITIONS} patterns with counted repetitions")
        self._order = self._sorted()
        self._levels: list[list[int]] = []

    def _number(self, schema: Any) -> int:
        number = self._numbers.setdefault(id(schema), len(self._schemas))
        if number == len(self._schemas):
            self._schemas.append(schema)
        return number

    def _in_place(self, schema: Any) -> Iterator[Any]:
        """Yield the schemas that apply to the same value as ``schema``."""
        if not isinstance(schema, dict):
            return
        lists, maps, ones = _SAME
        for name in lists:
            yield from _list_of(schema.get(name))
        for name in maps:
            yield from _values_of(schema.get(name))
        yield from (schema[name] for name in ones if name in schema)
        for name in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(name), str):
                yield from self._places.found(schema, reference)

    def _sorted(self) -> list[int]:
        """Return all schemas, each after those in place of it. Raises ``ValueError`` if one applies itself."""
        users: list[list[int]] = [[] for _ in self._same]
        for at, same in enumerate(self._same):
            for one in same:
                users[one].append(at)
        missing = [len(same) for same in self._same]
        order = [at for at, count in enumerate(missing) if not count]
        for at in order:  # grows while it is read
            for user in users[at]:
                missing[user] -= 1
                if not missing[user]:
                    order.append(user)
        if len(order) < len(self._same):
            raise ValueError("one of its schemas refers to itself for the same value")
        return order

    def of_one(self, depth: int) -> int:
        """Return the visits of one value that is ``depth`` levels below the value that is checked."""
        while len(self._levels) <= depth and (not self._levels or self._levels[-1][0]):
            above = self._levels[-1] if self._levels else None
            counts = [0] * len(self._same)
            for at in self._order:
                own = _weight(self._schemas[at])
                if above is not None:
                    own = sum(max((above[child] for child in group), default=0) for group in self._children[at])
                counts[at] = min(own + sum(counts[one] for one in self._same[at]), MAX_VISITS + 1)
            self._levels.append(counts)
        return self._levels[depth][0] if depth < len(self._levels) else 0

    def of(self, value: Any) -> int:
        """Return the visits of ``value`` and everything in it; more than ``MAX_VISITS`` if there are too many."""
        total, depth, level = 0, 0, [value]
        while level and total <= MAX_VISITS and (each := self.of_one(depth)):
            below: list[Any] = []
            for one in level:
                total += each
                if isinstance(one, str):
                    total += each * (len(one) // CHARACTERS)
                elif isinstance(one, dict):
                    below += one.values()
                    total += each * (len(one) // 8)
                elif isinstance(one, list):
                    below += one
                if total > MAX_VISITS:
                    break
            depth, level = depth + 1, below
        return total


def _weight(schema: Any) -> int:
    if not isinstance(schema, dict):
        return 1
    return 1 + sum(len(_list_of(schema.get(name))) // 8 for name in ("enum", "required"))


def _repetitions(schema: Any) -> int:
    """Return how many patterns of ``schema`` itself have counted repetitions."""
    if not isinstance(schema, dict):
        return 0
    named = schema.get("patternProperties")
    patterns = [schema.get("pattern"), *(named if isinstance(named, dict) else ())]
    return sum("{" in one for one in patterns if isinstance(one, str))


def _children_of(schema: Any) -> Iterator[list[Any]]:
    """Yield groups of schemas that apply to members or elements; of a group, one applies to each."""
    if not isinstance(schema, dict):
        return
    maps, ones = _CHILD
    yield list(_values_of(schema.get(maps[0])))
    for one in _values_of(schema.get(maps[1])):
        yield [one]
    for name in (*ones, "unevaluatedProperties", "unevaluatedItems"):
        if name in schema:
            yield [schema[name]]
    items = schema.get("items")
    yield [*_list_of(schema.get("prefixItems")), *(items if isinstance(items, list) else [items] if items else [])]


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values_of(value: Any) -> Iterator[Any]:
    return iter(value.values()) if isinstance(value, dict) else iter(())


class _Resources:
    """The schemas of a document by the URIs that references name. Several of one name count together."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._bases: dict[int, str] = {}
        self._named: dict[str, list[Any]] = {"": [schema]}
        self._dynamic: list[Any] = []
        drafts4 = "draft-04" in str(schema.get("$schema"))
        left: list[tuple[Any, str]] = [(schema, "")]
        while left:
            one, base = left.pop()
            if isinstance(one, dict):
                name = one.get("id" if drafts4 else "$id")
                if isinstance(name, str):
                    uri = base + name if name.startswith("#") else urljoin(base, name)
                    self._named.setdefault(uri.removesuffix("#"), []).append(one)
                    base = urldefrag(uri)[0]
                for key in ("$anchor", "$dynamicAnchor"):
                    if isinstance(anchor := one.get(key), str):
                        self._named.setdefault(f"{base}#{anchor}", []).append(one)
                        self._dynamic += [one] if key == "$dynamicAnchor" else []
                if one.get("$recursiveAnchor"):
                    self._dynamic.append(one)
                self._bases[id(one)] = base
                left += [(value, base) for value in one.values() if isinstance(value, dict | list)]
            else:
                left += [(value, base) for value in one if isinstance(value, dict | list)]

    def found(self, schema: Mapping[str, Any], reference: str) -> list[Any]:
        """Return what ``reference`` in ``schema`` may mean. Raises ``ValueError`` if that is outside."""
        own = self._bases.get(id(schema), "")
        base, fragment = urldefrag(own + reference if reference.startswith("#") else urljoin(own, reference))
        if fragment.startswith("/"):
            parts = [unquote(p).replace("~1", "/").replace("~0", "~") for p in fragment[1:].split("/")]
            found = [_at(one, parts) for one in self._named.get(base, [])]
            found = [one for one in found if one is not None]
        else:
            found = list(self._named.get(f"{base}#{fragment}" if fragment else base, []))
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            found += self._dynamic
        if not found:
            raise ValueError(f"{reference[:100]!r} refers to nothing in the schema")
        return found


def _at(schema: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(schema, dict) and part in schema:
            schema = schema[part]
        elif isinstance(schema, list) and re.fullmatch(r"\d{1,6}", part) and int(part) < len(schema):
            schema = schema[int(part)]
        else:
            return None
    return schema if isinstance(schema, dict | bool) else None
