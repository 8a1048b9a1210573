"""Distinguish the revisions of the protocol, and check the requirements of each.

2026-07-28 is stateless: each request names its revision and its client's capabilities in ``_meta``, and repeats the
parts that proxies route by as headers. Older revisions begin with ``initialize``; their session is a sealed text.
Source: https://modelcontextprotocol.io/specification/2026-07-28/basic/transports
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.protocols.mcp.errors import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, RpcError
from app.protocols.mcp.structs import META, RpcMessage

STATELESS = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Revisions with sessions, newest first."""

SUPPORTED = (STATELESS, *LEGACY)

_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that ``Mcp-Name`` repeats, by method."""


class Envelope(NamedTuple):
    """The client of a request. ``session``: the digest of its session; empty without one.

    ``log_level`` is set if it wants log messages of this request; ``progress_token`` if it wants its progress.
    """

    stateless: bool
    capabilities: Mapping[str, Any]
    progress_token: str | int | None = None
    log_level: str | None = None
    session: str = ""

    def may(self, capability: str) -> bool:
        """Whether the client has declared ``capability``."""
        return isinstance(self.capabilities.get(capability), dict)

    def extends(self, extension: str) -> bool:
        """Whether the client has declared ``extension``."""
        extensions = self.capabilities.get("extensions")
        return isinstance(extensions, dict) and isinstance(extensions.get(extension), dict)


def is_stateless(message: RpcMessage, headers: Mapping[str, str]) -> bool:
    """Whether a message is of a stateless revision: its ``_meta`` or its header names one, or one that is unknown."""
    meta = message.params.get("_meta")
    if isinstance(meta, dict) and f"{META}protocolVersion" in meta:
        return True
    named = headers.get("mcp-protocol-version")
    return named is not None and named not in LEGACY


def stateless_envelope(message: RpcMessage, headers: Mapping[str, str]) -> Envelope:
    """Check a request of a stateless revision, and return what it says of its client. Raises ``RpcError``."""
    meta = message.params.get("_meta")
    meta = meta if isinstance(meta, dict) else {}
    version, capabilities = meta.get(f"{META}protocolVersion"), meta.get(f"{META}clientCapabilities")
    if not isinstance(version, str) or not isinstance(capabilities, dict):
        raise RpcError(
            INVALID_PARAMS,
            f"params._meta needs {META}protocolVersion, a revision, and {META}clientCapabilities, an object.",
            status=400,
        )
    _check_header(headers, "MCP-Protocol-Version", version)
    if version != STATELESS:
        data = {"supported": list(SUPPORTED), "requested": version}
        raise RpcError(UNSUPPORTED_VERSION, f"This server does not speak {version[:40]!r}.", data)
    assert isinstance(message.method, str)
    _check_header(headers, "Mcp-Method", message.method)
    if (name := _NAMED.get(message.method)) is not None and isinstance(message.params.get(name), str):
        _check_header(headers, "Mcp-Name", message.params[name])
    level = meta.get(f"{META}logLevel")
    return Envelope(True, capabilities, progress_token(meta), level if isinstance(level, str) else None)


def progress_token(meta: Any) -> str | int | None:
    """Return the progress token of a client, if it wants progress."""
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, str | int) and not isinstance(token, bool) else None


def _check_header(headers: Mapping[str, str], name: str, value: str) -> None:
    given = headers.get(name.lower())
    if given is None:
        raise RpcError(HEADER_MISMATCH, f"The header {name} is missing: it repeats the value in the body.")
    if _decoded(given) != value:
        raise RpcError(HEADER_MISMATCH, f"The header {name} differs from the value in the body.")


def _decoded(text: str) -> str | None:
    """Return the value of a header; values that are not plain ASCII come as ``=?base64?…?=``."""
    text = text.strip()
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    try:
        return base64.b64decode(text[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
