"""Accepted lists of tools: what an operator has seen and accepted, and how a server's list differs from it."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

PINNED = ("name", "title", "description", "inputSchema", "outputSchema")
"""Members of a tool that models act on. Annotations are hints which nothing here trusts."""

Tools = Mapping[str, Mapping[str, Any]]
"""Tools by name, as the server describes them."""

_encode = msgspec.json.Encoder(order="sorted").encode


def pinned(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of ``tool`` that are pinned."""
    return {name: tool[name] for name in PINNED if tool.get(name) is not None}


def digest_of(tool: Mapping[str, Any]) -> str:
    """Return the digest (SHA-256) of what is pinned of ``tool``."""
    return hashlib.sha256(_encode(pinned(tool))).hexdigest()


class PinnedTool(NamedTuple):
    """A tool as it was accepted."""

    name: str
    digest: str


def list_digest(tools: Tools) -> str:
    """Return the digest of a whole list, whatever its order."""
    return hashlib.sha256("\n".join(sorted(map(digest_of, tools.values()))).encode()).hexdigest()


def differences(accepted: Tools, listed: Tools) -> Iterator[str]:
    """Yield lines that show how ``listed`` differs from what was ``accepted``, as a unified diff of each tool."""
    for name in sorted({*accepted, *listed}):
        before, after = _lines(accepted.get(name)), _lines(listed.get(name))
        yield from difflib.unified_diff(before, after, f"accepted/{name}", f"server/{name}", lineterm="")


def _lines(tool: Mapping[str, Any] | None) -> list[str]:
    """Return a tool as lines that are safe to print: JSON escapes control characters; others show as escapes."""
    if tool is None:
        return []
    text = msgspec.json.format(_encode(pinned(tool)), indent=2).decode()
    return [visible(line) for line in text.splitlines()]


def visible(line: str) -> str:
    """Return ``line`` with escapes for invisible characters, which may contain instructions for a model."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class PinStore(Protocol):
    """Where accepted lists are kept."""

    async def known(self, agent: str, server: str) -> Tools:
        """Return the accepted list of ``server`` for ``agent``; empty if there is none yet."""
        ...

    async def accepted(self, agent: str, server: str, listed: Tools) -> Tools:
        """Return the accepted list of ``server`` for ``agent``; if there is none yet, accept ``listed``."""
        ...


class FirstSeen:
    """Accepts, in this process alone, the first list it sees (``PinStore``): for commands without a database."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], Tools] = {}

    async def known(self, agent: str, server: str) -> Tools:
        """Return the first list that was given; empty if none was."""
        return self._lists.get((agent, server), {})

    async def accepted(self, agent: str, server: str, listed: Tools) -> Tools:
        """Return the first list that was given for ``agent`` and ``server``."""
        return self._lists.setdefault((agent, server), listed)
