"""The client's address behind proxies: only what trusted proxies report counts.

Source: RFC 7239, section 5.2 (in the form of X-Forwarded-For, which proxies send in practice).
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

from app.base.errors import UsageError

UNKNOWN = "unknown"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Addresses and networks of proxies whose X-Forwarded-For is trusted. Raises ``UsageError`` for invalid entries."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        for text in trusted:
            if text := text.strip():
                try:
                    self._networks.append(ipaddress.ip_network(text))
                except ValueError as error:
                    raise UsageError(
                        f"AGENT_TRUSTED_PROXIES has the invalid entry {text!r}; use addresses and "
                        "networks like 10.0.0.0/8"
                    ) from error

    def client(self, scope: Any) -> str:
        """Return the client's address: the last one in X-Forwarded-For that is not a trusted proxy's."""
        client = scope.get("client")
        address = client[0] if client else UNKNOWN
        if not self._networks or not self._trusts(address):
            return str(address)
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for part in reversed(forwarded.split(",")):
            try:
                address = str(ipaddress.ip_address(part.strip()))
            except ValueError:
                break  # not an address: the last trusted one counts
            if not self._trusts(address):
                break
        return str(address)

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
