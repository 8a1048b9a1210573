"""The image's health check reports the server's own readiness."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from app.cli import health


class Server(http.server.ThreadingHTTPServer):
    status = 200


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.send_response(self.server.status if self.path == "/api/v1/health/ready" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_ready_server_is_healthy(server: Server) -> None:
    assert health.probe("127.0.0.1", server.server_port) == ""


def test_a_server_on_all_addresses_is_probed_on_loopback(server: Server) -> None:
    assert health.probe("0.0.0.0", server.server_port) == ""


def test_a_server_that_is_not_ready_is_unhealthy(server: Server) -> None:
    server.status = 503
    assert health.probe("127.0.0.1", server.server_port) == "not ready: status 503"


def test_no_server_is_unhealthy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert health.probe("127.0.0.1", unused.getsockname()[1]).startswith("no answer from port")
