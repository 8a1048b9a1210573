"""``dev``: one command from nothing to a streamed response, repeatedly on the same data."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.cli.health import probe
from tests.cli.commands import Running, only_line, run_command
from tests.ports import free_port
from tests.serving.processes import is_alive
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

Start = Callable[..., Running]


def test_serves_until_ctrl_c_and_leaves_nothing_running(start: Start, port: int, tmp_path: Path) -> None:
    server = start("dev", "--port", str(port), fresh=True)
    screen = server.printed(r"(?s)agent-service is ready in .*Ctrl-C stops it.*\n").group()
    for words in (f"http://127.0.0.1:{port}/api/v1", f"http://127.0.0.1:{port}/docs", "scripted:demo", "echo"):
        assert words in screen
    assert probe("127.0.0.1", port) == ""
    printed = screen[screen.index("curl") : screen.index("Ctrl-C")].strip()
    answer = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, timeout=30, check=True).stdout
    assert answer.startswith("event: metadata")
    assert "84" in answer
    check_local_origins_are_allowed_and_foreign_ones_refused(port)
    assert "https://evil.example" in server.printed(r"origin_refused.*\n").group()

    assert run_command(tmp_path, "store", "export", "-").stderr.startswith("0 items of default written")
    assert re.search(r"run_ended.*agent=assistant.*status=success.*tokens=", server.output())

    other = run_command(tmp_path, "dev", "--port", str(port))
    assert (other.returncode, only_line(other)) == (
        1,
        f"port {port} is in use: stop the other program or pass --port N",
    )
    postgres = postgres_of(tmp_path)
    os.killpg(server.process.pid, signal.SIGINT)  # what a terminal does
    assert server.process.wait(30) == 0
    assert not is_alive(postgres)
    assert run_command(tmp_path, "store", "export", "-").stderr.startswith("0 items of default written")


def check_local_origins_are_allowed_and_foreign_ones_refused(port: int) -> None:
    base = f"http://127.0.0.1:{port}/api/v1"
    thread = httpx.post(f"{base}/threads", json={}, timeout=20).json()["thread_id"]
    for origin, status in (("http://localhost:3000", 200), ("https://evil.example", 403), ("null", 403)):
        answer = httpx.post(f"{base}/threads", json={}, headers={"Origin": origin}, timeout=20)
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (
            status,
            origin if status == 200 else None,
        )
        wanted = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert httpx.options(f"{base}/threads", headers=wanted, timeout=20).status_code == (
            204 if status == 200 else 403
        )
        assert (handshake(port, thread, Origin=origin) == "HTTP/1.1 403 Forbidden\n") is (status == 403)
    assert httpx.post(f"{base}/threads", content=b"{}", timeout=20).status_code == 415
    assert httpx.post(f"{base}/threads", json={}, headers={"Host": "evil.example"}, timeout=20).status_code == 400
    assert handshake(port, thread, Host="evil.example") == "HTTP/1.1 403 Forbidden\n"


def handshake(port: int, thread: str, **headers: str) -> str:
    """Return the status line of a WebSocket handshake."""
    sent = {
        "Host": f"localhost:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /api/v1/threads/{thread}/stream HTTP/1.1\r\n{lines}\r\n".encode())
        return connection.makefile().readline()


def test_a_second_server_on_the_same_data_is_refused_unless_the_first_was_killed(
    start: Start, port: int, tmp_path: Path
) -> None:
    first = start("dev", "--port", str(port))
    first.printed("is ready in")
    second = run_command(tmp_path, "dev", "--port", str(free_port()))
    assert second.returncode == 1
    assert "is in use by process" in only_line(second)

    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    until(lambda: probe("127.0.0.1", port))
    third = start("dev", "--port", str(port))
    third.printed("is ready in")
    assert third.stop(signal.SIGTERM) == 0


def test_reload_applies_changes_and_waits_for_a_fix(start: Start, port: int, tmp_path: Path) -> None:
    server = start("dev", "--port", str(port), "--reload")
    server.printed("is ready in")
    postgres = postgres_of(tmp_path)
    agents = tmp_path / "agents.toml"
    agents.write_text("[agents.late]\nmodel = 'scripted:echo'\ntools = ['fly']\n")
    server.printed(r"waiting_for_a_change.*agents.toml.*'fly'")
    assert probe("127.0.0.1", port) == ""  # the previous worker continues to serve
    (tmp_path / "pyproject.toml").write_text("[project]\n")  # not a source of an agent
    agents.write_text("[agents.late]\nmodel = 'scripted:echo'\n")
    server.printed(r"ready again.*late")
    assert postgres_of(tmp_path) == postgres
    assert "pyproject.toml" not in server.output()
    assert server.stop(signal.SIGINT) == 0


def test_reload_follows_the_modules_of_graphs_wherever_they_are(
    start: Start, port: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = tmp_path_factory.mktemp("library")
    (library / "words.py").write_text("ANSWER = 'first'\n")
    (library / "graph.py").write_text(GRAPH)
    (tmp_path / "agents.toml").write_text(
        f"[agents.late]\ngraph = 'graph:graph'\n[graphs]\ndependencies = ['{library}']\n"
    )
    server = start("dev", "--port", str(port), "--reload")
    server.printed("is ready in")
    run = {"assistant_id": "late", "input": {}}
    base = f"http://127.0.0.1:{port}/api/v1"
    assert httpx.post(f"{base}/runs/wait", json=run, timeout=60).json() == {"said": "first"}
    (library / "words.py").write_text("ANSWER = 'second'\n")
    server.printed("source_changed.*words.py")
    server.printed("ready again")
    assert httpx.post(f"{base}/runs/wait", json=run, timeout=60).json() == {"said": "second"}
    assert server.stop(signal.SIGINT) == 0


GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph
from words import ANSWER

class Said(TypedDict, total=False):
    said: str

graph = StateGraph(Said).add_node("say", lambda _: {"said": ANSWER}).add_edge(START, "say").compile()
"""


def postgres_of(folder: Path) -> int:
    """Return the process id of the PostgreSQL server of ``folder``."""
    return int((folder / ".data/postgres/postmaster.pid").read_text().splitlines()[0])
