"""Ports for servers of tests."""

import random
import socket

PORTS = range(15_000, 32_000)
"""Below those that Linux gives to outgoing connections (32768 to 60999, ip(7)), one of which would take the port of a
server while it restarts."""


def free_port() -> int:
    """Return a TCP port that is free on this machine."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
