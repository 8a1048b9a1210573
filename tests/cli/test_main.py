"""The command line: useful help, one-line errors, and stable exit codes."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from app.cli import version
from app.cli.main import VERBS, main
from tests.cli.commands import PEPPER, ROOT, environment, only_line, run_command

ACTIONS = ["keys create", "keys list", "keys revoke", "agents list", "agents check"]


@pytest.mark.parametrize("words", ["", *VERBS, *ACTIONS])
def test_every_help_has_a_description_and_an_example(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*words.split(), "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: agent-service {words}" in text
    assert f"example: agent-service {words}" in text
    assert len(text.splitlines()) >= 5


def test_help_imports_no_server_libraries() -> None:
    """Imports decide how fast it is."""
    script = (
        "import contextlib, sys; from app.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print(sorted({'asyncio', 'granian', 'litestar', 'msgspec', 'sqlalchemy', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("fly", "invalid choice: 'fly'"),
        ("dev --fly", "unrecognized arguments: --fly"),
        ("keys", "the following arguments are required: ACTION"),
        ("keys create", "the following arguments are required: --name"),
        ("keys create --name x --expires soon", "--expires must be a number and m, h, d or w, like 90d, not 'soon'"),
        ("serve --role tea", "invalid choice: 'tea'"),
        ("dev --port 0", "PORT must be a whole number from 1 to 65535, not '0'"),
        ("dev --host 0.0.0.0", "dev on 0.0.0.0 would be open to everybody"),
        ("migrate", "set MIGRATE_DATABASE_URL"),
        ("keys list", "DATABASE_URL is not set"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("agent-service: ")
    assert sentence in line


@pytest.mark.parametrize("level", ["info", "debug"])
def test_an_unexpected_error_is_one_line_and_its_traceback_needs_debug(
    level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> NoReturn:
        raise ZeroDivisionError("select secret\nfrom everything")

    monkeypatch.setattr(version, "run", fail)
    monkeypatch.setenv("LOG_LEVEL", level)
    assert main(["version"]) == 1
    text = capsys.readouterr().err.splitlines()
    assert text[-1] == "agent-service: ZeroDivisionError: select secret; set LOG_LEVEL=debug for the traceback"
    assert ("Traceback (most recent call last):" in text) is (level == "debug")


def test_ctrl_c_ends_a_command_quietly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(version, "run", interrupted)
    assert main(["version"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    with os.fdopen(writable, "w") as closed_pipe:
        done = subprocess.run(
            [sys.executable, "-m", "app", "agents", "list"],
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def output_on_a_terminal(folder: Path, *words: str, **settings: str) -> str:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=folder,
        env=environment(
            TERM="xterm", PYTHON_COLORS="0", **settings
        ),  # switches off argparse's own colours of Python 3.14
        stdout=theirs,
        check=True,
    )
    os.close(theirs)
    text = os.read(ours, 65536)
    os.close(ours)
    return text.decode()


def test_headings_stand_out_on_a_terminal(tmp_path: Path) -> None:
    assert "\033[1moptions\033[0m" in output_on_a_terminal(tmp_path, "--help")


def test_no_color_switches_colours_off(tmp_path: Path) -> None:
    assert "\033[" not in output_on_a_terminal(tmp_path, "--help", NO_COLOR="1")
    assert "\033[" in output_on_a_terminal(tmp_path, "--help", NO_COLOR="")


def test_without_a_terminal_help_is_plain(tmp_path: Path) -> None:
    assert "\033[" not in run_command(tmp_path, "--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["version"],
        ["init", "new"],
        ["migrate"],
        ["keys", "list"],
        ["tenants", "usage", "default"],
        ["data", "export", "--tenant", "default", "--out", "-"],
        ["store", "export", "-"],
        ["agents", "list"],
        ["doctor", *(f"--skip={check}" for check in ("server", "secrets", "production", "provider key", "login role"))],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_each_command_imports_what_it_needs(words: list[str], tmp_path: Path, database_url: str) -> None:
    """In a fresh interpreter; tests of what commands do fork a process that has imported the program.

    ``serve`` and ``dev`` start in a fresh interpreter in one test of their own files each.
    """
    done = subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=tmp_path,
        env=environment(DATABASE_URL=database_url, AGENT_KEY_PEPPER=PEPPER),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_invalid_setting_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=mysql://x\n")
    done = run_command(tmp_path, "serve")
    assert done.returncode == 2
    assert only_line(done).startswith("DATABASE_URL must be like postgresql://")
