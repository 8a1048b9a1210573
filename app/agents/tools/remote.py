"""What tools in other systems share: how requests to them fail, and their keys in the agents file."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from app.agents.tools.port import ToolResult
from app.base.errors import StartError

FIRST_PAUSE = 0.25
MAX_PAUSE = 15.0
"""Seconds before a call is sent again; doubled each time."""
CANCEL_SECONDS = 2.0
"""How long the end of a call waits until the other system has cancelled its work."""
MAX_TIMEOUT = 86_400
MAX_NAME_LENGTH = 64
"""Characters of a tool's name that every provider takes."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT)]

Lookup = Callable[[str], str | None]
"""Returns the value of an environment variable, or the content of the file that ``NAME_FILE`` names; None if unset."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_UNSUITABLE = re.compile(r"[^A-Za-z0-9_-]")


class ServerAway(Exception):
    """The request did not reach the server, so that it may be sent again; the message is the reason."""


class LostConnection(Exception):
    """The connection was lost after the request was sent: whether it took effect is not known."""


class ServerError(Exception):
    """The server answered with an error, or against the protocol."""

    def __init__(self, message: str, code: int = 0, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class ToolStopped(Exception):
    """The tool may not be called; the message is the reason."""


def failed(words: str) -> ToolResult:
    """Return the result of a call that failed, with ``words`` for the model."""
    return ToolResult(content=words, status="error")


def expand_references(values: Mapping[str, str], lookup: Lookup) -> dict[str, str]:
    """Return ``values`` with those of the variables that they refer to as ``${NAME}``. Raises ``StartError``."""

    def value_of(match: re.Match[str]) -> str:
        value = lookup(match[1])
        if value is None:
            raise StartError(f"the variable {match[1]} is not set: set it, or {match[1]}_FILE")
        return value

    return {name: _REFERENCE.sub(value_of, text) for name, text in values.items()}


def suitable_name(name: str) -> str:
    """Return ``name``, or a name like it, with a digest, if not every provider takes it as the name of a tool."""
    suitable = _UNSUITABLE.sub("_", name)
    if suitable == name and len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{suitable[: MAX_NAME_LENGTH - 9]}_{digest}"
