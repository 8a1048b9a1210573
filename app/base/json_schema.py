"""Check values by JSON Schemas that users, graphs and other servers bring, in bounded time.

References never leave the schema, and no pattern backtracks for long. A few nested ``anyOf`` or references can make a
validator visit one value millions of times, so the visits are counted before a value is checked: first by what the
schema may need at each depth, then, if that is too much, by what this value needs (``app.base.schema_visits``).
"""

from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs

from app.base.schema_visits import MAX_VISITS, SchemaVisits, ValueVisits

MAX_VISITS_OF_ONE = 10_000
"""Visits of one value, without those of its members: a schema that may need more is refused."""
MAX_EXPLAINED_VISITS = 2_000
"""Beyond it a value is only said not to fit: an explanation costs a hundred times as much as the check."""
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1 << 23)

TOO_COSTLY = "it takes too long to check: use fewer nested anyOf, oneOf, allOf and $ref"


class Problem(NamedTuple):
    """Why a value does not fit: where in it, and a sentence."""

    path: tuple[str | int, ...]
    message: str


class JsonSchema:
    """A compiled schema (2020-12 unless ``$schema`` names another draft).

    A ``$ref`` to a file or to another host is an error: it is never read. Raises ``ValueError`` with one line.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._visits = SchemaVisits(schema)
        if self._visits.of_worst() > MAX_VISITS_OF_ONE:
            raise ValueError(TOO_COSTLY)
        self._validator = _compiled(schema)
        self._of_values: tuple[ValueVisits, jsonschema_rs.Validator] | None = None

    def problems(self, value: Any, limit: int = 1) -> list[Problem]:
        """Return up to ``limit`` reasons why ``value`` does not fit; none if it does.

        Raises ``CheckTooExpensive`` if the check would take too long.
        """
        validator, visits = self._validator, self._visits.of(value)
        if visits > MAX_VISITS:
            if self._of_values is None:
                counter = ValueVisits(self._visits)
                self._of_values = counter, _compiled(counter.guarded())
            counter, validator = self._of_values
            visits = counter.of(value)
        if validator.is_valid(value):
            return []
        if visits > MAX_EXPLAINED_VISITS:
            return [Problem((), "does not fit the schema")]
        errors = islice(validator.iter_errors(value), limit)
        return [Problem(tuple(error.instance_path), error.message) for error in errors]


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except ValueError as error:
        raise ValueError(str(error).partition("\n")[0]) from error
