"""Put meanings and examples into the OpenAPI document, where a route has none of its own."""

from typing import Any

from app.server.api_reference.examples import BODIES, PARAMETERS
from app.server.api_reference.fields import meaning_of

Node = dict[str, Any]


def complete(document: Node) -> Node:
    """Add the meaning of each field and parameter, and the example of each body and parameter; return ``document``."""
    for struct, schema in document["components"].get("schemas", {}).items():
        for name, field in schema.get("properties", {}).items():
            if meaning := meaning_of(struct, name):
                field.setdefault("description", meaning)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_operation(operation, BODIES.get((method.upper(), path)))
    return document


def _complete_operation(operation: Node, body: Any) -> None:
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        if (meaning := meaning_of("", name)) and not parameter.get("description"):
            parameter["description"] = meaning
        if name in PARAMETERS and parameter.get("required"):
            parameter.setdefault("example", PARAMETERS[name])
    for media in operation.get("requestBody", {}).get("content", {}).values():
        text = media.get("schema", {}).get("type") == "string"
        if body is not None and "examples" not in media and isinstance(body, str) == text:
            media.setdefault("example", body)
