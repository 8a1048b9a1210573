"""Whose request it is, where proxies stand in between: only what trusted ones say is believed.

Source: RFC 7239, section 5.2 (the form is that of X-Forwarded-For, which proxies really send).
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

from app.base.errors import UsageError

UNKNOWN = "unknown"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The addresses and networks in ``trusted`` may say who asks them. Raises ``UsageError`` for what is none."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        for text in trusted:
            if text := text.strip():
                try:
                    self._networks.append(ipaddress.ip_network(text))
                except ValueError as error:
                    raise UsageError(
                        f"AGENT_TRUSTED_PROXIES names {text!r}; use addresses and networks like 10.0.0.0/8"
                    ) from error

    def client(self, scope: Any) -> str:
        """The address of who asks: the last one in X-Forwarded-For that no trusted proxy has."""
        client = scope.get("client")
        address = client[0] if client else UNKNOWN
        if not self._networks or not self._trusts(address):
            return str(address)
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for part in reversed(said.split(",")):
            try:
                address = str(ipaddress.ip_address(part.strip()))
            except ValueError:
                break  # no address: the last one that was believed counts
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
