"""Declaration of a setting: its variable, its meaning for docs/reference/configuration.md, and its constraints."""

from typing import Any

import msgspec


def is_(variable: str, meaning: str, **rules: Any) -> msgspec.Meta:
    """Return the annotation of the field that ``variable`` sets; ``rules`` are those of ``msgspec.Meta``."""
    return msgspec.Meta(description=meaning, extra={"variable": variable}, **rules)


POSTGRES: dict[str, Any] = {
    "pattern": r"^postgres(ql)?://",
    "examples": ["postgresql://user:password@host/database?sslmode=require", "postgresql:///database?host=/folder"],
}
HTTP: dict[str, Any] = {"pattern": r"^https?://[^/]"}
ISSUER: dict[str, Any] = {"pattern": r"^(https://[^/]|http://(127\.0\.0\.1|localhost|\[::1\])[:/])"}
"""TLS or loopback only: keys fetched without TLS could be forged."""
