"""``agents list`` and ``agents check``, without a database."""

import re
from pathlib import Path

import pytest

from app.base.errors import AgentServiceError
from app.infra.settings.environment import load
from app.server.composition.services import build
from tests.cli.commands import only_line, run_command

GOOD = """
[agents.greeter]
model = "scripted:echo"
tools = ["clock", "./tools.py:add"]
"""
TOOLS = '''
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
'''
AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str) -> str:
    return authorization
"""
NO_DATABASE = "postgresql://user@127.0.0.1:1/none"
"""Never connected to."""


def test_list_names_each_agent_with_its_model_and_tools(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    done = run_command(tmp_path, "agents", "list", "--agents", "mine.toml")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["NAME", "KIND", "MODEL", "TOOLS"]
    assert ["assistant", "tool", "loop", "scripted:demo", "clock,", "calculator,", "notes"] in rows
    assert ["greeter", "tool", "loop", "scripted:echo", "clock,", "./tools.py:add"] in rows


def test_check_prints_ok_for_each_agent_that_loads(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text(TOOLS)
    done = run_command(tmp_path, "agents", "check")
    assert done.returncode == 0, done.stdout
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("assistant", "echo", "stream100", "greeter")
    ]


def test_check_reports_an_error_and_continues(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text("\nimport not_there\n")
    done = run_command(tmp_path, "agents", "check")
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert "greeter" in line
    assert "not_there" in line
    assert "tools.py, line 2" in line
    assert len(done.stdout.splitlines()) == 4


def test_an_invalid_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text("[agents.x]\nmodle = 'scripted:echo'\n")
    for action in ("list", "check"):
        done = run_command(tmp_path, "agents", action)
        assert done.returncode == 1
        assert only_line(done) == "agents.toml, line 2: agent 'x': unknown key 'modle'; did you mean 'model'?"


@pytest.mark.parametrize("way", ["import sys\nsys.exit(3)", "raise SystemExit('enough')", "raise KeyboardInterrupt"])
def test_a_module_that_exits_is_reported_as_a_failed_agent(tmp_path: Path, way: str) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text(f"{way}\n")
    done = run_command(tmp_path, "agents", "check")
    assert done.returncode == 1
    failed = done.stdout.splitlines()[-1]
    assert failed.startswith("failed  greeter: ")
    assert "tools.py" in failed
    assert f"line {len(way.splitlines())}" in failed


PAID_STORE = '[store]\nembedder = "openai:text-embedding-3-small"\n'
PAID_INDEX = '[[store.index]]\nprefix = ["docs"]\nembedder = "openai:text-embedding-3-small"\n'
HANDLERS = '[auth]\npath = "./auth.py:auth"\n'


@pytest.mark.parametrize(
    "text, settings, part, words",
    [
        (PAID_STORE, {}, "[store]", "OPENAI_API_KEY"),
        (PAID_INDEX, {}, "[store]", "OPENAI_API_KEY"),
        ('[store]\nfields = ["parts[["]\n', {}, "[store]", "parts[["),
        (HANDLERS, {"AGENT_AUTH": "jwt"}, "[auth]", "AGENT_AUTH=jwt"),
        ('[auth]\npath = "./auth.py:nothing"\n', {}, "[auth]", "nothing"),
    ],
)
def test_check_reports_the_same_errors_as_a_server(
    tmp_path: Path, text: str, settings: dict[str, str], part: str, words: str
) -> None:
    (tmp_path / "agents.toml").write_text(text)
    (tmp_path / "auth.py").write_text(AUTH)
    done = run_command(tmp_path, "agents", "check", **settings)
    assert done.returncode == 1, done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed  {part}: ")
    assert words in line
    given = load(overrides={"DATABASE_URL": NO_DATABASE, "AGENT_CONFIG": str(tmp_path / "agents.toml"), **settings})
    with pytest.raises(AgentServiceError) as refused:
        build(given)
    assert str(refused.value).replace(str(tmp_path / "agents.toml"), "agents.toml") in line


def test_check_lists_store_and_auth_that_load(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text('[store]\nfields = ["title"]\n' + HANDLERS)
    (tmp_path / "auth.py").write_text(AUTH)
    done = run_command(tmp_path, "agents", "check")
    assert done.returncode == 0, done.stdout
    assert [line.split() for line in done.stdout.splitlines()][-2:] == [["ok", "[store]"], ["ok", "[auth]"]]


ODD_TOOLS = '''
from datetime import date


class Customer:
    pass


def fine(day: date | None = None, tags: set[str] = frozenset()) -> str:
    return "fine"


def odd(number: int, customer: %s) -> str:
    """Find.

    Args:
        customer: whose
    """
    return "never"
'''


@pytest.mark.parametrize("kind", ["Customer", "list[Customer]", "complex", "date | str", "int | list[int] | set[int]"])
def test_check_names_file_function_parameter_and_the_supported_types(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tools.py").write_text(ODD_TOOLS % kind)
    (tmp_path / "agents.toml").write_text('[agents.a]\ntools = ["./tools.py:fine", "./tools.py:odd"]\n')
    done = run_command(tmp_path, "agents", "check")
    assert done.returncode == 1
    failed = done.stdout.splitlines()[-1]
    assert failed.startswith(
        f"failed  a: agents.toml: agent 'a': tool 'odd' ({tmp_path}/tools.py, line 13, function odd)"
    )
    assert "parameter 'customer' has the type " in failed
    assert re.search(
        f"{kind.replace('|', '.').split('[')[0].split()[0]}[^;]*, which cannot be described as JSON", failed
    )
    assert "; use str, int, float, bool, None, Literal, Enum" in failed
    assert "msgspec.Struct" in failed
