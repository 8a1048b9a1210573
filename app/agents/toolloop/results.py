"""What tools return, made fit to be stored and to be read by a model."""

import msgspec

from app.domain.state import HIDDEN, MESSAGES
from app.tools.port import ToolResult

LONGEST_RESULT = 256 * 1024
"""Characters of text that the model gets to read; more is cut."""
LARGEST_RESULT = 4 * 1024 * 1024
"""Bytes of a whole result as JSON, artifact and update included; a larger one is an error."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ToolResult).decode


def checked(result: ToolResult) -> ToolResult:
    """``result`` as it will be stored: a tool may return anything, and what it returned may still change.

    Raises ``ValueError`` (msgspec's included) or ``TypeError`` for what is no proper result.
    """
    if isinstance(result.content, str) and len(result.content) > LONGEST_RESULT:
        cut = f"{result.content[:LONGEST_RESULT]}\n[cut: the result had {len(result.content)} characters]"
        result = msgspec.structs.replace(result, content=cut)
    encoded = _encode(result)
    if len(encoded) > LARGEST_RESULT:
        raise ValueError(f"the result has {len(encoded)} bytes, more than {LARGEST_RESULT}")
    stored = _decode(encoded)
    if MESSAGES in stored.update:
        raise ValueError("a tool cannot change the thread's messages")
    if any(name.startswith(HIDDEN) for name in stored.update):
        raise ValueError(f"a tool cannot change values whose names begin with {HIDDEN}")
    return stored
