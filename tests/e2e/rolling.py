"""A rolling restart behind nginx under load: no request may fail; clients do not retry."""

import asyncio
import os
import shutil
import subprocess
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from tests.e2e.podman import Failed, Missing
from tests.e2e.stack import ROOT, Stack, until
from tests.ports import free_port

CONF = ROOT / "deploy" / "nginx" / "agent-service.conf"
CLIENTS = 6
MAX_SECONDS = 300
ONE_REQUEST = {"Connection": "close"}
"""One connection per request: nginx closes idle ones on reload, and with them a request that arrives just then."""
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


class Nginx:
    """The installed nginx with the shipped configuration, without TLS, in front of two servers."""

    def __init__(self, folder: Path, servers: list[int]) -> None:
        program = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if program is None:
            raise Missing("nginx is not installed (NGINX_PROGRAM names another)")
        self._words = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
        self._folder = folder
        self._servers = servers
        self.port = free_port()
        self.write(set())
        self._process = subprocess.Popen([*self._words, "-g", "daemon off;"], stdout=subprocess.DEVNULL)

    def write(self, down: set[int]) -> None:
        """Write the configuration with the servers in ``down`` disabled."""
        text = CONF.read_text("utf-8")
        lines = "".join(f"server 127.0.0.1:{one}{' down' if one in down else ''}; " for one in self._servers)
        text = text.replace("server 127.0.0.1:8000;", lines).replace(
            "listen 443 ssl;", f"listen 127.0.0.1:{self.port};"
        )
        text = "\n".join(line for line in text.splitlines() if "ssl_" not in line)
        temporary = "".join(
            f"{kind}_temp_path {self._folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        head = "worker_processes 1;\npid nginx.pid;\nevents { worker_connections 1024; }\n"
        (self._folder / "nginx.conf").write_text(f"{head}http {{\naccess_log off;\n{temporary}{text}\n}}\n", "utf-8")

    def take_out(self, *ports: int) -> None:
        """Send no new requests to these servers; requests in progress continue."""
        self.write(set(ports))
        subprocess.run([*self._words, "-s", "reload"], check=True, timeout=30, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stop nginx."""
        self._process.terminate()
        self._process.wait(30)


class Load:
    """Clients that send requests continuously until they are stopped."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self.requests = 0
        self.failures: list[str] = []
        self.longest = 0.0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Run all clients until they are stopped."""
        async with asyncio.timeout(MAX_SECONDS):
            await asyncio.gather(*(self._talk(number) for number in range(CLIENTS)))

    def stop(self) -> None:
        """Let the clients end after their current conversation."""
        self._stop.set()

    def has_passed(self, requests: int) -> bool:
        """Whether more than ``requests`` have been answered."""
        return self.requests > requests

    async def _talk(self, number: int) -> None:
        async with get_client(url=self._url, api_key=self._key, headers=ONE_REQUEST) as client:
            while not self._stop.is_set():
                started_at = time.monotonic()
                try:
                    await self._conversation(client, ("echo", "stream100", "assistant")[number % 3])
                except Exception as error:  # noqa: BLE001  any error is a failed request
                    self.failures.append(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0.05)
                self.longest = max(self.longest, time.monotonic() - started_at)

    async def _conversation(self, client: Any, agent: str) -> None:
        thread = (await client.threads.create())["thread_id"]
        last = None
        async for part in client.runs.stream(thread, agent, input=HELLO, stream_mode="updates"):
            last = part.event
        if last != "end":
            raise Failed(f"a stream ended with {last}")
        said = await client.runs.wait(thread, agent, input=HELLO)
        run = await client.runs.create(thread, agent, input=HELLO)
        await client.runs.join(thread, run["run_id"])
        values = (await client.threads.get_state(thread))["values"]
        if "__error__" in said or len([one for one in values["messages"] if one["type"] == "human"]) != 3:
            raise Failed(f"a conversation lacks a turn: {str(values)[:200]}")
        self.requests += 6


def is_idle(stack: Stack, service: str) -> bool:
    """Whether a server has no active run and no open stream, by its metrics."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics', timeout=5).read().decode())"
    page = stack.podman("exec", stack.containers()[service], "python", "-c", script)
    busy = [
        line
        for line in page.splitlines()
        if line.startswith(("agent_runs_active", "agent_streams_open")) and float(line.rpartition(" ")[2]) > 0
    ]
    return not busy


async def restart_both(stack: Stack, nginx: Nginx, load: Load) -> list[float]:
    """Take out, recreate and put back each server while the other serves; return the seconds each took."""
    took = []
    for service, port in (("app", stack.app), ("app-2", stack.other)):
        started_at = time.monotonic()
        await asyncio.to_thread(nginx.take_out, port)
        await asyncio.to_thread(until, partial(is_idle, stack, service), 60, f"{service} is idle")
        before = stack.containers()[service]
        old = stack.podman.inspect(before)["Id"]
        await asyncio.to_thread(stack.compose, "up", "--detach", "--no-deps", "--force-recreate", service)
        await asyncio.to_thread(until, partial(stack.ready, port), 90, f"{service} is ready again")
        if stack.podman.inspect(stack.containers()[service])["Id"] == old:
            raise Failed(f"{service} was not recreated")
        await asyncio.to_thread(nginx.take_out)
        took.append(time.monotonic() - started_at)
        await asyncio.to_thread(until, partial(load.has_passed, load.requests + 50), 60, "both serve again")
    return took


async def rolling(stack: Stack, key: str, folder: Path) -> str:
    """Run the rolling restart under load. Raises ``Failed`` if a request failed."""
    nginx = Nginx(folder, [stack.app, stack.other])
    try:
        url = f"http://127.0.0.1:{nginx.port}/agents"
        await asyncio.to_thread(until, lambda: _answers(f"{url}/readyz"), 30, "nginx serves")
        load = Load(f"{url}/api/v1", key)
        running = asyncio.ensure_future(load.run())
        try:
            await asyncio.to_thread(until, lambda: load.requests > 50 or bool(load.failures), 60, "load has begun")
            took = await restart_both(stack, nginx, load)
        finally:
            load.stop()
            await running
    finally:
        nginx.stop()
    if load.failures:
        raise Failed(f"{len(load.failures)} conversations of {load.requests // 6} failed: {load.failures[0][:300]}")
    return (
        f"{load.requests} requests of {CLIENTS} clients, none failed; each server was away for "
        f"{' and '.join(f'{one:.1f} s' for one in took)}; longest conversation {load.longest:.2f} s"
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
