"""The arguments of a tool call: JSON text from outside, decoded with care."""

from typing import Any

import msgspec

from app.base.errors import AgentServiceError
from app.base.json_scan import check

MAX_BYTES = 1024 * 1024
"""Arguments larger than this are refused: they are text that a model has written."""


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``; no text at all is an empty one. Raises ``ValueError`` that says what is wrong."""
    try:
        encoded = text.strip().encode()
        if len(encoded) > MAX_BYTES:
            raise ValueError(f"the arguments have {len(encoded):,} bytes, more than {MAX_BYTES:,}")
        check(encoded, "The text")
        value = msgspec.json.decode(encoded or b"{}")
    except (msgspec.DecodeError, UnicodeError, AgentServiceError) as error:
        raise ValueError(f"the arguments are not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the arguments are not a JSON object")  # noqa: TRY004  the text is at fault, no caller
    return value
