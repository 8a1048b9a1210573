"""Bounds on the visits of a JSON Schema validator to a value.

``SchemaVisits`` foresees them by the schema and the shape of a value, which takes microseconds and is too much for a
union that contains itself. ``ValueVisits`` follows the value through the schema: members that apply to arrays alone are
not counted for objects, and an alternative whose type, required members or constants contradict the value is not
entered. The validator enters it all the same, in an order of its own; so the schema that it gets asks these first
(``ValueVisits.guarded``).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

MAX_SUBSCHEMAS = 5_000
MAX_VISITS = 500_000
"""Visits of a value and everything in it; a tenth of a second at most."""
MAX_STEPS = 40_000
"""Steps of following one value through its schema; a tenth of a second at most."""
MAX_REPETITIONS = 64
"""Patterns with counted repetitions, such as ``{1,64}``: each can take 50 ms to compile."""
CHARACTERS = 64
"""Characters of a text that cost as much as a visit."""

_SAME = ("allOf", "anyOf", "oneOf"), ("dependentSchemas", "dependencies"), ("not", "if", "then", "else")
_CHILD = ("properties", "patternProperties"), ("additionalProperties", "propertyNames", "contains", "additionalItems")
_GUARDING_DRAFTS = re.compile(r"https?://json-schema\.org/draft(/2020-12|/2019-09|-07)/schema#?")
_METASCHEMA = re.compile(r"https?://json-schema\.org/draft")
_OF_SCHEMAS: dict[str, Any] = {"enum": [None] * 800}
"""Stands for a published metaschema: it visits each value in a schema up to a hundred times."""
_OF_SCHEMAS |= {"additionalProperties": _OF_SCHEMAS, "items": _OF_SCHEMAS}
_ALTERNATIVES = ("anyOf", "oneOf")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class CheckTooExpensive(ValueError):
    """A value would take too long to check by its schema."""

    def __init__(self) -> None:
        super().__init__(
            "it takes too long to check: give a smaller or flatter value, or a schema whose alternatives "
            "differ by their types, or by a required member with a const"
        )


class SchemaVisits:
    """How often at most the validator visits a value: by level, as schemas in one place apply to the same value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.root = schema
        self.schemas: list[Any] = []
        self.same: list[list[int]] = []
        self._places = _Resources(schema)
        self._numbers: dict[int, int] = {}
        self._children: list[list[list[int]]] = []
        self.number(schema)
        for at, one in enumerate(self.schemas):  # grows while it is read
            if at >= MAX_SUBSCHEMAS:
                raise ValueError(f"it has more than {MAX_SUBSCHEMAS:,} schemas")
            twice = 2 if isinstance(one, dict) and any(name.startswith("unevaluated") for name in one) else 1
            same = [self.number(sub) for sub in self.in_place(one)]
            self.same.append(same * twice)
            self._children.append([[self.number(sub) for sub in group] for group in _children_of(one)])
        if sum(map(_repetitions, self.schemas)) > MAX_REPETITIONS:
            raise ValueError(f"it has more than {MAX_REPETITIONS} patterns with counted repetitions")
        self._order = self._sorted()
        self._levels: list[list[int]] = []

    def number(self, schema: Any) -> int:
        """Return the number of a schema by its identity."""
        number = self._numbers.setdefault(id(schema), len(self.schemas))
        if number == len(self.schemas):
            self.schemas.append(schema)
        return number

    def in_place(self, schema: Any, dependent: bool = True) -> Iterator[Any]:
        """Yield the schemas that apply to the same value as ``schema``, those that depend on members too."""
        if not isinstance(schema, dict):
            return
        lists, maps, ones = _SAME
        for name in lists:
            yield from _list_of(schema.get(name))
        for name in maps if dependent else ():
            yield from _values_of(schema.get(name))
        yield from (schema[name] for name in ones if name in schema)
        for name in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(name), str):
                yield from self.found(schema, reference)

    def found(self, schema: Mapping[str, Any], reference: str) -> list[Any]:
        """Return what ``reference`` in ``schema`` may mean."""
        return self._places.found(schema, reference)

    def _sorted(self) -> list[int]:
        """Return all schemas, each after those in place of it. Raises ``ValueError`` if one applies itself."""
        users: list[list[int]] = [[] for _ in self.same]
        for at, same in enumerate(self.same):
            for one in same:
                users[one].append(at)
        missing = [len(same) for same in self.same]
        order = [at for at, count in enumerate(missing) if not count]
        for at in order:  # grows while it is read
            for user in users[at]:
                missing[user] -= 1
                if not missing[user]:
                    order.append(user)
        if len(order) < len(self.same):
            raise ValueError("one of its schemas refers to itself for the same value")
        return order

    def of_worst(self) -> int:
        """Return the visits of one value by the schema in it that needs the most, without those of its members."""
        self.of_one(0)
        return max(self._levels[0])

    def of_one(self, depth: int) -> int:
        """Return the visits of one value that is ``depth`` levels below the value that is checked."""
        if depth * len(self.same) > MAX_VISITS:
            return MAX_VISITS + 1
        while len(self._levels) <= depth and (not self._levels or self._levels[-1][0]):
            above = self._levels[-1] if self._levels else None
            counts = [0] * len(self.same)
            for at in self._order:
                own = _weight(self.schemas[at])
                if above is not None:
                    own = sum(max((above[child] for child in group), default=0) for group in self._children[at])
                counts[at] = min(own + sum(counts[one] for one in self.same[at]), MAX_VISITS + 1)
            self._levels.append(counts)
        return self._levels[depth][0] if depth < len(self._levels) else 0

    def of(self, value: Any) -> int:
        """Return the visits of ``value`` and everything in it; more than ``MAX_VISITS`` if there are too many."""
        total, depth, level = 0, 0, [value]
        while level and total <= MAX_VISITS and (each := self.of_one(depth)):
            if total + each * len(level) > MAX_VISITS:
                return MAX_VISITS + 1
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


class _Guard(NamedTuple):
    """What a value must have, so that an alternative can apply: a type, required members, members of a few values."""

    types: frozenset[str]
    required: tuple[str, ...]
    members: Mapping[str, tuple[Any, ...]]

    def admits(self, value: Any) -> bool:
        """Whether ``value`` may fit. Of scalars only the type is looked at."""
        if self.types and not any(isinstance(value, _TYPES.get(name, object)) for name in self.types):
            return False
        if not isinstance(value, dict):
            return True
        return all(name in value for name in self.required) and all(
            isinstance(value[name], dict | list) or value[name] in allowed
            for name, allowed in self.members.items()
            if name in value
        )

    def schema(self) -> dict[str, Any]:
        """Return the guard as a schema."""
        schema: dict[str, Any] = {"type": sorted(self.types)} if self.types else {}
        if self.required:
            schema["required"] = list(self.required)
        if self.members:
            schema["properties"] = {name: {"enum": list(allowed)} for name, allowed in self.members.items()}
        return schema


class _Plan(NamedTuple):
    """The numbers of the schemas that a schema applies: in place, with guards; to members; to elements."""

    own: int
    same: list[tuple[int, _Guard | None]]
    dependent: list[tuple[str, int]]
    properties: Mapping[str, int]
    every_member: list[int]
    other_members: list[int]
    prefix: list[int]
    every_element: list[int]
    other_elements: list[int]


class ValueVisits:
    """Count the visits of values by the schemas of ``visits``; each pair of a schema and a value is looked at once."""

    def __init__(self, visits: SchemaVisits) -> None:
        self._visits = visits
        self._guards = self._all_guards()
        self._plans: dict[int, _Plan] = {}

    def of(self, value: Any) -> int:
        """Return the visits of ``value`` and everything in it. Raises ``CheckTooExpensive`` for too many."""
        try:
            return _Walk(self).count(0, value)
        except RecursionError as error:
            raise CheckTooExpensive from error

    def guarded(self) -> dict[str, Any]:
        """Return the schema with a guard in front of each alternative that has one."""
        if not self._guards:
            return self._visits.root
        copy: dict[str, Any] = self._copied(self._visits.root)
        return copy

    def plan(self, number: int) -> _Plan:
        """Return the plan of a schema; made when it is first needed."""
        found = self._plans.get(number)
        if found is None:
            found = self._plans[number] = self._plan_of(self._visits.schemas[number])
        return found

    def _plan_of(self, schema: Any) -> _Plan:
        if not isinstance(schema, dict):
            return _Plan(1, [], [], {}, [], [], [], [], [])

        def numbers(*names: str) -> list[int]:
            return [self._visits.number(schema[name]) for name in names if isinstance(schema.get(name), dict)]

        twice = 2 if any(name.startswith("unevaluated") for name in schema) else 1
        items = schema.get("items")
        prefix = [*_list_of(schema.get("prefixItems")), *_list_of(items)]
        dependent = [
            (name, self._visits.number(one))
            for key in _SAME[1]
            if isinstance(schema.get(key), dict)
            for name, one in schema[key].items()
        ]
        same = [
            (self._visits.number(one), self._guards.get(id(one)))
            for one in self._visits.in_place(schema, dependent=False)
        ]
        return _Plan(
            own=_weight(schema),
            same=same * twice,
            dependent=dependent,
            properties={name: self._visits.number(one) for name, one in _items_of(schema.get("properties"))},
            every_member=[
                *(self._visits.number(one) for one in _values_of(schema.get("patternProperties"))),
                *numbers("unevaluatedProperties"),
            ],
            other_members=numbers("additionalProperties"),
            prefix=[self._visits.number(one) for one in prefix],
            every_element=numbers("contains", "unevaluatedItems"),
            other_elements=numbers("items", "additionalItems"),
        )

    def _all_guards(self) -> dict[int, _Guard]:
        """Return the guards of alternatives; none if the schema is of a draft without ``if``, or refers into a list."""
        guards: dict[int, _Guard] = {}
        for schema in self._visits.schemas:
            if not isinstance(schema, dict):
                continue
            references = [schema.get(name) for name in ("$ref", "$dynamicRef", "$recursiveRef")]
            if any(isinstance(one, str) and re.search("/(anyOf|oneOf)/", unquote(one)) for one in references):
                return {}
            named = schema.get("$schema")
            if named is not None and not (schema is self._visits.root and _GUARDING_DRAFTS.fullmatch(str(named))):
                return {}
            for name in _ALTERNATIVES:
                for one in _list_of(schema.get(name)):
                    if guard := _guard_of(one, self._visits):
                        guards[id(one)] = guard
        return guards

    def _copied(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._copied(one) for one in value]
        if not isinstance(value, dict):
            return value
        copy = {name: self._copied(one) for name, one in value.items()}
        for name in _ALTERNATIVES:
            if isinstance(value.get(name), list):
                copy[name] = [
                    {"if": guard.schema(), "then": made, "else": False}
                    if (guard := self._guards.get(id(one)))
                    else made
                    for one, made in zip(value[name], copy[name], strict=True)
                ]
        return copy


class _Walk:
    """One walk through a value."""

    def __init__(self, visits: ValueVisits) -> None:
        self._visits = visits
        self._known: dict[tuple[int, int | type], int] = {}
        self._steps = 0

    def count(self, number: int, value: Any) -> int:
        """Return the visits of ``value`` by the schema. Raises ``CheckTooExpensive``."""
        key = number, id(value) if isinstance(value, dict | list) else type(value)
        found = self._known.get(key)
        self._steps += 1
        if found is None:
            plan = self._visits.plan(number)
            found = plan.own + sum(self._in_place(plan, value))
            if isinstance(value, dict):
                found += len(value) // 8 + sum(self._members(plan, value))
            elif isinstance(value, list):
                found += sum(self._elements(plan, value))
            self._known[key] = found
        if isinstance(value, str):
            found *= 1 + len(value) // CHARACTERS
        if found > MAX_VISITS or self._steps > MAX_STEPS:
            raise CheckTooExpensive
        return found

    def _in_place(self, plan: _Plan, value: Any) -> Iterator[int]:
        for number, guard in plan.same:
            if guard is not None:
                self._steps += 1
                yield 2 + len(guard.members)
            if guard is None or guard.admits(value):
                yield self.count(number, value)
        for name, number in plan.dependent:
            if isinstance(value, dict) and name in value:
                yield self.count(number, value)

    def _members(self, plan: _Plan, value: Mapping[str, Any]) -> Iterator[int]:
        for name, one in value.items():
            own = plan.properties.get(name)
            if own is not None:
                yield self.count(own, one)
            others = [] if own is not None else plan.other_members
            for number in (*plan.every_member, *others):
                yield self.count(number, one)

    def _elements(self, plan: _Plan, value: list[Any]) -> Iterator[int]:
        for at, one in enumerate(value):
            first = plan.prefix[at : at + 1] or plan.other_elements
            for number in (*plan.every_element, *first):
                yield self.count(number, one)


def _guard_of(schema: Any, visits: SchemaVisits) -> _Guard | None:
    """Return the guard of an alternative, or of what it refers to; None if it has none."""
    for _ in range(8):
        if not isinstance(schema, dict) or "$id" in schema:
            return None
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        found = visits.found(schema, reference)
        if len(found) != 1:
            return None
        schema = found[0]
    else:
        return None
    type_ = schema.get("type")
    types = frozenset([type_] if isinstance(type_, str) else [one for one in _list_of(type_) if isinstance(one, str)])
    required = tuple(one for one in _list_of(schema.get("required"))[:8] if isinstance(one, str))
    members = {}
    for name, one in list(_items_of(schema.get("properties")))[:64]:
        if isinstance(one, dict) and ("const" in one or "enum" in one):
            allowed = [one["const"]] if "const" in one else _list_of(one["enum"])
            if 0 < len(allowed) <= 16 and all(isinstance(x, str | int | float | None) for x in allowed):
                members[name] = tuple(allowed)
    if not (types or required or members):
        return None
    return _Guard(types, required, members)


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


def _items_of(value: Any) -> Iterator[tuple[str, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(())


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
        if not found and _METASCHEMA.match(base):
            found = [_OF_SCHEMAS]  # whether it exists is the validator's to say
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
