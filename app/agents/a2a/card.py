"""Cards of other agents: https://a2a-protocol.org/latest/specification/#8-agent-discovery-the-agent-card"""

from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from app.agents.tools.remote import ServerError
from app.infra.wires.a2a import Wire

BINDING = "JSONRPC"
MAX_DESCRIPTION_LENGTH = 4_000
MAX_SKILLS = 32

Version = Literal["1.0", "0.3"]


class PeerCard(NamedTuple):
    """What a model reads about an agent, and where and in which version it is called.

    ``tenant``: to be sent with every request, if not empty.
    """

    description: str
    endpoint: str
    version: Version
    tenant: str = ""


class _Interface(Wire):
    url: str
    protocol_binding: str = ""
    transport: str = ""  # 0.3
    protocol_version: str = ""
    tenant: str = ""


class _Skill(Wire):
    name: str = ""
    description: str = ""


class _Card(Wire):
    name: str
    description: str = ""
    skills: tuple[_Skill, ...] = ()
    supported_interfaces: tuple[_Interface, ...] = ()
    url: str = ""  # this and the rest: 0.3
    protocol_version: str = ""
    preferred_transport: str = BINDING
    additional_interfaces: tuple[_Interface, ...] = ()


_decode = msgspec.json.Decoder(_Card).decode


def parse_card(body: bytes, url: str) -> PeerCard:
    """Return what the card ``body``, found at ``url``, says. Raises ``ServerError`` if the agent cannot be called."""
    try:
        card = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ServerError(f"there is no valid agent card at {url}: {str(error)[:300]}") from None
    found = next(_interfaces(card), None)
    if found is None:
        raise ServerError("its card offers no interface for JSON-RPC in version 1.0 or 0.3 of A2A")
    interface, version = found
    if _origin(interface.url) != _origin(url):
        raise ServerError(f"its card names the address {interface.url[:300]}: use the card of that address instead")
    return PeerCard(_description(card), interface.url, version, interface.tenant)


def _interfaces(card: _Card) -> Iterator[tuple[_Interface, Version]]:
    """Yield the interfaces that we can use, with their versions, the newest version first."""
    offered = [one for one in card.supported_interfaces if one.protocol_binding == BINDING]
    for one in offered:
        if one.protocol_version.partition(".")[0] == "1":
            yield one, "1.0"
    old = [_Interface(url=card.url, transport=card.preferred_transport), *card.additional_interfaces]
    old = [one for one in old if card.protocol_version.startswith("0.3") and one.transport == BINDING and one.url]
    for one in (*old, *(one for one in offered if one.protocol_version.startswith("0.3"))):
        yield one, "0.3"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port: headers with credentials go nowhere else. Raises ``ServerError``."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise ServerError("its card names an invalid address") from None


def _description(card: _Card) -> str:
    lines = [f"The agent {card.name}: {card.description}" if card.description else f"The agent {card.name}."]
    skills = [one for one in card.skills[:MAX_SKILLS] if one.description not in {"", card.description}]
    lines += [f"- {one.name}: {one.description}" for one in skills]
    return "\n".join(lines)[:MAX_DESCRIPTION_LENGTH]
