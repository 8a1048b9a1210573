"""Below a path and behind nginx: URLs, streams, bodies and the SDK."""

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from tests.database import clone, drop
from tests.journeys.conftest import AGENTS, Served
from tests.ports import free_port
from tests.waiting import until

CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "agent-service.conf"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def below(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server below the path /agents."""
    url = asyncio.run(clone(server_url))
    names = "agents.example.com,127.0.0.1"
    settings = {"ROOT_PATH": "/agents", "AGENT_TRUSTED_PROXIES": "127.0.0.1", "AGENT_ALLOWED_HOSTS": names}
    server = Served(url, tmp_path_factory.mktemp("below"), AGENT_CONFIG=str(AGENTS), **settings)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


@pytest.mark.parametrize("prefix", ["", "/agents"])
@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/livez", "/metrics", "/docs", "/openapi.json", "/api/v1/ok", "/api/v1/health"]
)
def test_each_path_is_served_with_the_prefix_and_without(below: Served, prefix: str, path: str) -> None:
    """A busy machine may answer a probe with 503 for a moment."""
    until(lambda: below.get(prefix + path) == 200)


@pytest.mark.parametrize("path", ["/agentsx/api/v1/ok", "/agents/agents/api/v1/ok", "/x/healthz"])
def test_other_prefixes_are_unknown(below: Served, path: str) -> None:
    assert below.get(path) == 404


def test_probes_are_served_below_a_path_and_at_the_root(below: Served) -> None:
    for path in ("/agents/healthz", "/readyz", "/agents/metrics"):
        until(lambda path=path: below.get(path) == 200)  # type: ignore[misc]


def test_without_authentication_a_foreign_host_is_refused_below_a_path_too(below: Served) -> None:
    foreign = {"Host": "10.0.0.7"}
    assert below.get("/agents/healthz", foreign) == below.get("/agents/api/v1/info", foreign) == 400


def test_page_links_work_even_if_the_proxy_strips_the_prefix(below: Served) -> None:
    root = f"http://127.0.0.1:{below.port}"
    page = httpx.get(f"{root}/docs").text
    assert set(re.findall(r'(?:src|href|data-document)="(/[^/]*)/', page)) == {"/agents"}
    document = httpx.get(f"{root}/openapi.json", headers={"Host": "agents.example.com"}).json()
    server = document["servers"][0]["url"]
    assert all(f"{server}{path}".startswith("http://agents.example.com/agents/") for path in document["paths"])


@pytest.fixture(scope="module")
def nginx(below: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an nginx with our configuration, except for ports and certificate."""
    program = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("NO NGINX HERE: install nginx, or name its program in NGINX_PROGRAM, to try deploy/nginx")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    subject = ["-subj", "/CN=agents.example.com", "-addext", "subjectAltName=DNS:agents.example.com,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    site = CONF.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{below.port}")
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    site = re.sub(r"/etc/nginx/tls/\S+\.(crt|key);", lambda match: f"{folder / match[1]};", site)
    places = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{site}\n}}\n"
    )
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        base = f"https://127.0.0.1:{port}/agents/api/v1"

        def up() -> bool:
            assert process.poll() is None, (folder / "error.log").read_text()
            try:
                return httpx.get(f"{base}/ok", verify=trust(folder)).status_code == 200
            except httpx.TransportError:
                return False

        until(up)
        yield f"{base} {folder}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def trust(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "crt"))


@pytest.fixture
def through(nginx: str) -> Iterator[httpx.Client]:
    base, folder = nginx.split()
    headers = {"Host": "agents.example.com"}
    with httpx.Client(base_url=base, verify=trust(Path(folder)), timeout=30, headers=headers) as client:
        yield client


def test_streams_come_through_nginx_piece_by_piece_and_resume(through: httpx.Client) -> None:
    thread_id = through.post("/threads", json={}).json()["thread_id"]
    later = {"assistant_id": "echo", "input": HELLO, "after_seconds": 7}
    run_id = through.post(f"/threads/{thread_id}/runs", json=later).json()["run_id"]
    path, began = f"/threads/{thread_id}/runs/{run_id}/stream", time.monotonic()
    with through.stream("GET", path) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        assert "heartbeat" in text
        assert time.monotonic() - began < 6.5
        text += "".join(pieces)
    ids = re.findall(r"id: (\S+)", text)
    assert ids[-1].startswith("1-")
    again = through.get(path, headers={"Last-Event-ID": ids[1]}).text
    assert re.findall(r"id: (\S+)", again) == ids[2:]


def test_large_bodies_come_through_and_larger_ones_do_not(through: httpx.Client) -> None:
    words = "x" * (7 * 1024 * 1024)
    body = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hi"}], "rest": words}}
    assert through.post("/runs/wait", json=body).status_code == 200
    for size in (2, 6):  # above the server's limit, and above the proxy's
        body["input"] = words * size
        assert through.post("/runs/wait", json=body).status_code == 413


def test_metrics_are_not_exposed_by_the_proxy(through: httpx.Client, nginx: str) -> None:
    assert through.get(f"{nginx.split(maxsplit=1)[0].removesuffix('/api/v1')}/metrics").status_code == 403


async def test_the_sdk_works_through_nginx(nginx: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folder = nginx.split()
    monkeypatch.setenv("SSL_CERT_FILE", f"{folder}/crt")
    async with get_client(url=base, headers={"Host": "agents.example.com"}) as client:
        thread = await client.threads.create()
        parts = [
            part async for part in client.runs.stream(thread["thread_id"], "echo", input=HELLO, stream_mode="updates")
        ]
        assert parts[-1].event == "end"
        run = await client.runs.create(thread["thread_id"], "echo", input=HELLO)
        joined = await client.runs.join(thread["thread_id"], run["run_id"])
        assert joined["messages"][-1]["content"] == "echo: hello"
