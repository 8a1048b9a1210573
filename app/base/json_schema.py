"""Compile JSON Schemas that users, graphs and other servers bring: references never leave the schema."""

from typing import Any

import jsonschema_rs


def validator_of(schema: dict[str, Any]) -> Any:
    """Return a validator of ``schema`` (2020-12 unless ``$schema`` names another draft).

    A ``$ref`` to a file or to another host is an error: it is never read. Raises ``ValueError`` with one line.
    """
    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except ValueError as error:
        raise ValueError(str(error).partition("\n")[0]) from error
