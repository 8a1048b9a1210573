"""``chat`` and ``runs watch`` against a running server, and the folder that ``new`` writes."""

import io
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from app.cli.main import main
from app.cli.terminal.conversation import RunPrinter, printable
from app.cli.terminal.server_client import ServerEvent
from tests.journeys.conftest import AGENTS, Served, serving
from tests.ports import free_port
from tests.waiting import until

SUM = "What is 12*(3+4)?"


@pytest.fixture(scope="module")
def server(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(server_url, tmp_path_factory.mktemp("chat"), AGENT_CONFIG=str(AGENTS)) as served:
        yield served.wait_until_ready()


class Terminal:
    """Runs a command with typed lines; returns its exit code, output and errors."""

    def __init__(self, server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = f"http://127.0.0.1:{server.port}"
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str, typed: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = main([*words, "--url", self.url])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def terminal(server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(server, monkeypatch, capsys)


def thread_in(output: str) -> str:
    found = re.search(r"thread (\S+)", output)
    assert found is not None, output
    return found[1]


def test_an_answer_streams_with_its_calls_and_a_thread_is_resumed(terminal: Terminal) -> None:
    code, out, _ = terminal("chat", "-m", SUM)
    assert code == 0
    assert '→ calculator(expression="12*(3+4)")\n← 84\n' in out
    assert re.search(r"answered: 84\n[0-9.]+ s · [0-9]+ tokens\n$", out)
    code, out, _ = terminal(
        "chat", "assistant", "--thread", thread_in(out), typed="What is 1+1?\n/agent\n/new\n/quit\n"
    )
    assert code == 0
    assert f"you  {SUM}\n" in out
    assert "← 2\n" in out
    assert "careful, " in out


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("a\n", "← 84\n"),
        ("maybe\napprove\n", "← 84\n"),
        ('e\nno JSON\n{"expression": "5*5"}\n', "← 25\n"),
        ("r\ntoo dear\n", "too dear"),
        ("s\nabout eighty\n", "← about eighty\n"),
    ],
)
def test_an_approval_is_given_by_key(terminal: Terminal, typed: str, expected: str) -> None:
    code, out, _ = terminal("chat", "careful", typed=f"{SUM}\n{typed}")
    assert code == 0, out
    asked, _, answered = out.partition("[a] approve")
    assert 'calculator needs approval\n  expression = "12*(3+4)"\n' in asked
    assert expected in answered


def test_a_question_stays_open_and_is_asked_again_on_its_thread(terminal: Terminal) -> None:
    code, out, _ = terminal("chat", "curious", typed="note buy milk\n")
    assert code == 1
    assert f"The question stays open: agent-service chat curious --thread {thread_in(out)}" in out
    code, out, _ = terminal("chat", "curious", "--thread", thread_in(out), typed="at the shop\ntoday\n")
    assert code == 0
    assert 'where?\n  text = "buy milk"\n' in out
    assert "add buy milk at the shop today" in out


def test_errors_say_what_to_do(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = terminal("chat", "unheard-of")
    assert code == 2
    assert "the server has no agent 'unheard-of': choose one of assistant, " in err
    code, _, err = terminal("chat", "--thread", "0123456789abcdef0123456789abcdef")
    assert (code, "not found" in err) == (1, True)
    assert main(["chat", "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "start one with `agent-service dev`, or give --url" in capsys.readouterr().err
    assert main(["chat", "--url", "ftp://host"]) == 2


def test_a_stream_that_breaks_off_goes_on_where_it_was(server: Served, terminal: Terminal) -> None:
    _, whole, _ = terminal("chat", "-m", SUM)
    with CuttingProxy(server.port, after=4_000) as proxy:
        terminal.url = f"http://127.0.0.1:{proxy.port}"
        code, out, _ = terminal("chat", "-m", SUM)
    assert proxy.cuts == 1
    assert code == 0
    assert out.splitlines()[1:-1] == whole.splitlines()[1:-1]


def test_runs_are_listed_with_their_agent_time_and_error(terminal: Terminal) -> None:
    _, out, _ = terminal("chat", "-m", SUM)
    code, listed, _ = terminal("runs", "watch", "--once", "--agent", "assistant", "--status", "success")
    assert code == 0
    assert re.search(rf"success +assistant +[0-9.]+ s +[0-9]+ +{thread_in(out)} ", listed)

    # what the server runs for itself is listed nowhere, and has a name
    note = {"file": ("tea.md", b"Green tea", "text/markdown")}
    httpx.post(f"{terminal.url}/api/v1/documents", files=note, timeout=30).raise_for_status()
    until(lambda: re.search(r"success +ingestion ", terminal("runs", "watch", "--once")[1]))


def test_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[2Jb\x07\u202ec\r\nd\te") == "a[2Jbc\nd\te"
    printer = RunPrinter()
    for data in ({"type": "ai", "content": "\x1b]0;owned\x07"}, {"type": "tool", "content": "x\n" * 99, "name": "t"}):
        printer.show(ServerEvent("1-1", "messages", [data, {}]))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "… 93 more lines" in shown


def test_a_new_folder_has_an_agent_a_tool_and_a_test_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "shop-agents"]) == 0
    folder = tmp_path / "shop-agents"
    assert "agent-service chat shop-agents" in capsys.readouterr().out
    assert {".gitignore", "AGENTS.md", "Containerfile", "README.md"} < {path.name for path in folder.iterdir()}
    assert not [path for path in folder.iterdir() if "NAME" in path.read_text()]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    tests: dict[str, Any] = {}
    exec(compile((folder / "test_tools.py").read_text(), "test_tools.py", "exec"), tests)
    for name in [name for name in tests if name.startswith("test_")]:
        tests[name]()
    assert main(["new", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["new", "no name"]) == 2


def test_the_bare_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "agent-service [-h] [--version] VERB" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


class CuttingProxy:
    """Passes connections on to ``port``; cuts the first stream ``after`` bytes of its response."""

    def __init__(self, port: int, *, after: int) -> None:
        self._target, self._after = port, after
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            passed = 0
            while data := server.recv(1000):
                client.sendall(data)
                passed += len(data)
                if passed > self._after and b"id: 1-" in data and not self.cuts:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


def test_json_of_an_interrupt_is_asked_for_by_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.cli.terminal.questions import ask_all

    lines = iter(["yes", "true"])
    asked = {"id": "q", "value": {"question": "sure?"}, "response_schema": {"type": "boolean"}}
    assert ask_all([asked], lambda *_: next(lines)) == {"q": True}
    review = {"id": "r", "value": {"type": "tool_review", "tool": "pay", "args": {"amount": 1}}}
    lines = iter(["d", json.dumps("paid")])
    assert ask_all([review], lambda *_: next(lines)) == {"r": {"action": "done", "result": '"paid"'}}
