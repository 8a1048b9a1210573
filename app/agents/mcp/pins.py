"""Accepted lists of tools: what an operator has seen and accepted, and how a server's list differs from it."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
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


class ToolList:
    """Tools by name, as the server describes them, and their digests, which are computed once."""

    def __init__(self, tools: Tools | None = None) -> None:
        self.tools: Tools = tools or {}

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The digest of each tool, by name."""
        return {name: digest_of(tool) for name, tool in self.tools.items()}

    @property
    def digest(self) -> str:
        """The digest of the whole list, whatever its order."""
        return hashlib.sha256("\n".join(sorted(self.digests.values())).encode()).hexdigest()


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

    async def known(self, agent: str, server: str) -> ToolList:
        """Return the accepted list of ``server`` for ``agent``; empty if there is none yet."""
        ...

    async def accepted(self, agent: str, server: str, listed: ToolList) -> ToolList:
        """Return the accepted list of ``server`` for ``agent``; if there is none yet, accept ``listed``."""
        ...


class FirstSeen:
    """Accepts, in this process alone, the first list it sees (``PinStore``): for commands without a database."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], ToolList] = {}

    async def known(self, agent: str, server: str) -> ToolList:
        """Return the first list that was given; empty if none was."""
        return self._lists.get((agent, server), ToolList())

    async def accepted(self, agent: str, server: str, listed: ToolList) -> ToolList:
        """Return the first list that was given for ``agent`` and ``server``."""
        return self._lists.setdefault((agent, server), listed)
