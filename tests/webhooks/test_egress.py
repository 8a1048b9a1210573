"""Egress: only public or allowed addresses are called, and responses are bounded."""

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from app.base.errors import UsageError
from app.infra.egress.addresses import AddressAllowlist, RefusedAddress, check_url
from app.infra.egress.client import MAX_RESPONSE_BYTES, EgressClient
from tests.system.services import API, serving
from tests.webhooks.receiver import receiving

PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.170",
    "192.0.0.255",
    "192.0.2.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "240.0.0.1",
    "239.255.255.250",
    "100.127.255.255",
    "172.31.255.255",
    "::ffff:192.0.0.8",
    "64:ff9b::c000:8",
    "2002:c000:8::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fec0::1",
    "192.88.99.1",
    "::127.0.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:7f00:1::",
    "2606:4700::5efe:169.254.169.254",
    "2606:4700::200:5efe:10.0.0.1",
]
PUBLIC = [
    "192.0.1.1",
    "100.128.0.1",
    "172.32.0.1",
    "198.20.0.1",
    "223.255.255.255",
    "2001:200::1",
    "1.1.1.1",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "64:ff9b::101:101",
    "2606:4700::5efe:1.1.1.1",
]


class Names(AbstractResolver):
    """A resolver that returns the given addresses, one result per call."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        address = self.answers.pop(0)
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None: ...


def refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, RefusedAddress):
            return True
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return False


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_private_address_is_never_called(address: str) -> None:
    with pytest.raises(RefusedAddress):
        AddressAllowlist().check(address)
    bracketed = f"[{address}]" if ":" in address else address
    for url in (f"http://{bracketed}:9/", "http://innocent.example:9/"):
        with pytest.raises((OSError, aiohttp.ClientError)) as caught:
            await EgressClient(AddressAllowlist(), resolver=Names(address)).post(url, b"", {})
        assert refused(caught.value)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    AddressAllowlist().check(address)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0"])
async def test_other_spellings_of_a_private_address_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        check_url(f"http://{host}:9/", AddressAllowlist())
    with pytest.raises((OSError, aiohttp.ClientError)) as caught:
        await EgressClient(AddressAllowlist()).post(f"http://{host}:9/", b"", {})
    assert refused(caught.value) or isinstance(caught.value, aiohttp.InvalidURL)


async def test_a_name_that_later_resolves_to_a_private_address_is_refused() -> None:
    async with receiving() as receiver:
        egress = EgressClient(AddressAllowlist(["127.0.0.0/8"]), resolver=Names("127.0.0.1", "10.0.0.1"))
        url = f"http://innocent.example:{receiver.port}/hook"
        assert (await egress.post(url, b"{}", {})).status == 200
        with pytest.raises((OSError, aiohttp.ClientError)) as caught:
            await egress.post(url, b"{}", {})
        assert refused(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_receiver_gets_its_host_name_although_the_address_is_dialled(scheme: str) -> None:
    """In ``Host``, and in the first record of TLS (where the name is not encrypted)."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    egress = EgressClient(AddressAllowlist(["127.0.0.1"]), seconds=5.0, resolver=Names("127.0.0.1"))
    with pytest.raises((OSError, aiohttp.ClientError)):
        await egress.post(f"{scheme}://innocent.example:{port}/", b"", {})
    first = await received
    assert (f"Host: innocent.example:{port}".encode() if scheme == "http" else b"innocent.example") in first
    server.close()


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/away"
        assert (await EgressClient(AddressAllowlist(["127.0.0.1"])).post(url, b"", {})).status == 307
        assert receiver.calls == []


async def test_a_response_is_read_within_a_size_and_a_time_limit() -> None:
    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            for _piece in range(1000):
                writer.write(b"x" * 100_000)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for answer in (pour, hang):
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        egress = EgressClient(AddressAllowlist(["127.0.0.1"]), seconds=2.0 if answer is pour else 0.2)
        if answer is pour:
            assert len((await egress.post(url, b"", {})).body) <= MAX_RESPONSE_BYTES
        else:
            with pytest.raises(TimeoutError):
                await egress.post(url, b"", {})
        server.close()


UNCALLABLE = [
    ("ftp://example.org/", "http://"),
    ("/relative", "http://"),
    ("https://user:pass@example.org/", "user or a password"),
    ("http://127.0.0.1/", "not a public address"),
    ("http://[::1]/", "not a public address"),
    ("http://localhost/", "this machine"),
    ("http://localhost./", "this machine"),
    ("http://127.0.0.1./", "not a public address"),
    ("https://example.org:port/", "Port"),
    ("https://exa mple.org/", "printable"),
    ("https://example.org/" + "x" * 3000, "2048"),
]
"""A URL, and words of its refusal."""


async def test_a_url_that_cannot_be_called_is_refused_at_once(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        for url, words in UNCALLABLE:
            with pytest.raises(ValueError, match=words):
                check_url(url, AddressAllowlist())
            run = {"assistant_id": "echo", "input": {"messages": "hi"}, "webhook": url}
            answer = await service.client.post(f"{API}/runs", json=run)
            assert answer.status_code == 422, url
            assert answer.json()["errors"][0]["pointer"] == "/webhook"


def test_the_allowlist_takes_hosts_addresses_and_networks() -> None:
    allowed = AddressAllowlist(["Hooks.internal", "10.1.0.0/16", "", " 192.168.0.7 "])
    assert allowed.host("hooks.INTERNAL")
    allowed.check("10.1.2.3")
    allowed.check("192.168.0.7")
    with pytest.raises(RefusedAddress):
        allowed.check("10.2.0.1")
    with pytest.raises(RefusedAddress):
        allowed.check("64:ff9b:1::1")
    AddressAllowlist(["64:ff9b:1::/48"]).check("64:ff9b:1::1")
    with pytest.raises(UsageError, match="AGENT_EGRESS_ALLOW"):
        AddressAllowlist(["10.1.2.3/16/4"])
