"""An agent that is used as a tool, as the agents file describes it (``[a2a.NAME]``), and the names of its tool."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from app.agents.tools.port import ToolClass
from app.agents.tools.remote import Seconds, suitable_name
from app.base.errors import StartError
from app.infra.egress.addresses import host_of

PREFIX = "a2a:"
"""What names of tools in the agents file begin with: ``a2a:NAME`` or ``a2a:https://…``."""
WELL_KNOWN = "/.well-known/agent-card.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class A2AAgentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent: its ``url``, of its card or without ``/.well-known/agent-card.json``.

    ``headers`` of requests may refer to variables of the environment as ``${NAME}``. ``description`` replaces that of
    its card. ``timeout``: seconds for one call, without the time in which a person is asked.
    """

    url: str
    headers: dict[str, str] = {}
    description: str = ""
    tool_class: ToolClass = ToolClass.RECONCILABLE
    timeout: Seconds = 300.0

    @property
    def card_url(self) -> str:
        """The address of its card."""
        return self.url if self.url.endswith(".json") else self.url.rstrip("/") + WELL_KNOWN

    def check(self, name: str) -> None:
        """Raise ``ValueError`` with what is wrong with it as ``name``, to be read after that."""
        try:
            host_of(self.url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if self.tool_class is ToolClass.TRANSACTIONAL:
            raise ValueError("tool_class transactional is not for other agents: they do not take part in our commits")


class A2AName(NamedTuple):
    """An agent as the agents file names it: the ``key`` of its table, or its URL. ``tool``: its name for models."""

    key: str
    tool: str
    is_url: bool


def parse_name(text: str) -> A2AName | None:
    """Parse ``a2a:NAME`` or ``a2a:https://…``; None for any other name. Raises ``StartError`` for neither.

    The name for models is the operator's, not the card's: a peer cannot rename itself out of an approval.
    """
    if not text.startswith(PREFIX):
        return None
    key = text.removeprefix(PREFIX)
    if _NAME.fullmatch(key):
        return A2AName(key, key, is_url=False)
    try:
        host = host_of(key)
    except ValueError as error:
        raise StartError(f"tool {text!r}: write a2a:NAME, or a2a: and the URL of the agent: {error}") from None
    path = urlsplit(key).path.removesuffix(WELL_KNOWN).rstrip("/")
    return A2AName(key, suitable_name(path.rpartition("/")[2] or host), is_url=True)
