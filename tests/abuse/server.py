"""A server under attack, with measurements of what the attack costs."""

import contextlib
import http.client
import json
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import fork_server
from tests.journeys.conftest import PEPPER, Served

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
LAYOUT = struct.Struct("=dq")
MB = 1 << 20


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


class Cost(NamedTuple):
    """Cost of an attack: seconds that the event loop was blocked, and bytes of additional memory."""

    blocked: float
    memory: int


class AttackedServer(Served):
    """A running ``agent-service serve`` with two tenants and a probe on its event loop."""

    def __init__(self, database_url: str, folder: Path, **environment: str) -> None:
        self._shared = folder / "probe"
        self._shared.write_bytes(bytes(LAYOUT.size))
        settings = {
            "AGENT_AUTH": "api_key",
            "AGENT_KEY_PEPPER": PEPPER,
            "AGENT_CONFIG": str(AGENTS),
            "AGENT_RATE_PER_MINUTE": "0",
            "ABUSE_PROBE": str(self._shared),
        }
        super().__init__(database_url, folder, **{**settings, **environment})
        self.attacker = self.key("attacker")
        self.other = self.key("other")

    def key(self, tenant: str, role: str = "member") -> str:
        words = ("keys", "create", "--name", "test", "--tenant", tenant, "--role", role)
        done = fork_server.run("app", *words, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def request(
        self, method: str, path: str, body: Any = None, key: str | None = None, seconds: float = 60.0, **headers: str
    ) -> Answer:
        """Send a request below the base path and return the response; bytes are sent unchanged."""
        return self.call(method, f"/api/v1{path}", body, key, seconds, **headers)

    def call(
        self, method: str, path: str, body: Any = None, key: str | None = None, seconds: float = 60.0, **headers: str
    ) -> Answer:
        """Send a request to any path, like ``request``."""
        text = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            given = {"x-api-key": key or self.attacker, "content-type": "application/json", **headers}
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
                connection.request(method, path, body=text, headers=given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {n.lower(): v for n, v in answer.getheaders()})
        finally:
            connection.close()

    def document(self) -> dict[str, Any]:
        """Return the server's OpenAPI document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/openapi.json")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    def worker(self) -> int:
        return int(LAYOUT.unpack(self._shared.read_bytes())[1])

    def memory(self, field: str = "VmRSS") -> int:
        text = Path(f"/proc/{self.worker()}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(field))

    def blocked(self) -> float:
        return float(LAYOUT.unpack(self._shared.read_bytes())[0])

    def reset(self) -> None:
        """Reset the longest delay and the peak memory."""
        with self._shared.open("r+b") as file:
            file.write(struct.pack("=d", 0.0))
        Path(f"/proc/{self.worker()}/clear_refs").write_text("5")

    @contextlib.contextmanager
    def measured(self) -> Iterator[list[Cost]]:
        """Append the cost of the block to the yielded list."""
        costs: list[Cost] = []
        self.reset()
        before = self.memory()
        yield costs
        self.call("GET", "/livez")  # the probe measures after what ran last
        time.sleep(0.02)
        costs.append(Cost(self.blocked(), self.memory("VmHWM") - before))

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(20)


def latency(server: AttackedServer, path: str, key: str, seconds: float) -> list[float]:
    """Send GET ``path`` repeatedly for ``seconds``; return the latencies."""
    took: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    end = time.monotonic() + seconds
    with contextlib.closing(connection):
        while time.monotonic() < end:
            started_at = time.perf_counter()
            connection.request("GET", f"/api/v1{path}", headers={"x-api-key": key})
            connection.getresponse().read()
            took.append(time.perf_counter() - started_at)
    return took
