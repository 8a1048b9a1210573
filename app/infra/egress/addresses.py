"""Addresses that this server may call on behalf of its users: public ones, and those that the operator allows."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from app.base.errors import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last four bytes
_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291: all of IPv6 that the internet routes
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private use
            "100.64.0.0/10",  # shared by providers with their customers
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link local, metadata services of clouds
            "172.16.0.0/12",  # private use
            "192.0.0.0/24",  # IETF protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4, deprecated
            "192.168.0.0/16",  # private use
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
            "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
"""Networks of the IANA registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, RFC 6890): not routed on
the internet, or leading elsewhere. Written out because the table in Python's ``ipaddress`` differs between versions.
"""
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # RFC 5214: an IPv4 address follows, whatever the network
_MAX_URL_LENGTH = 2048


class RefusedAddress(OSError):
    """The address belongs to a private network and may not be called."""


class AddressAllowlist:
    """Host names, addresses and networks that the operator allows in addition to the public internet."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises ``UsageError`` for an invalid entry."""
        self._hosts: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in filter(None, map(str.strip, entries)):
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if "/" in entry or ":" in entry:
                    raise UsageError(
                        f"AGENT_EGRESS_ALLOW has the invalid entry {entry!r}: use host names, "
                        "addresses or networks like 10.1.0.0/16"
                    ) from None
                self._hosts.add(entry.lower())

    def host(self, name: str) -> bool:
        """Whether the host ``name`` may have any address."""
        return name.lower() in self._hosts

    def check(self, text: str) -> None:
        """Raise ``RefusedAddress`` if the IP address ``text`` is private and not allowed."""
        address = ipaddress.ip_address(text.partition("%")[0])
        if any(address in network for network in self._networks):
            return
        for one in (address, *_inside(address)):
            if not _is_public(one):
                raise RefusedAddress(f"{text} is not a public address; AGENT_EGRESS_ALLOW can allow it")


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST and address not in _NAT64:
        return False
    return not any(address in network for network in _SPECIAL)


def _inside(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address embeds."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address.packed[8:12] in _ISATAP:
        found.append(ipaddress.IPv4Address(address.packed[-4:]))
    return [one for one in found if one is not None]


def host_of(url: str) -> str:
    """Return the host of ``url`` in lower case. Raises ``ValueError`` if it is not a plain http(s) URL."""
    parts = urlsplit(url)
    if len(url) > _MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it must be printable ASCII of at most 2048 characters")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not hold a user or a password")
    _ = parts.port  # raises if it is not a number
    return parts.hostname


def check_url(url: str, allowed: AddressAllowlist) -> None:
    """Raise ``ValueError`` if the URL may not be called, whatever its name resolves to."""
    host = host_of(url)
    if allowed.host(host):
        return
    host = host.removesuffix(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host.rpartition(".")[2].isdecimal() or host.rpartition(".")[2].startswith("0x"):
            raise ValueError("its address is not in canonical form") from None
        if host == "localhost" or host.endswith(".localhost"):
            raise ValueError("it names this machine") from None
        return  # a name: its addresses are checked when it is called
    try:
        allowed.check(host)
    except RefusedAddress as error:
        raise ValueError(str(error)) from None
