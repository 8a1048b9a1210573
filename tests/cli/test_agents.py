"""``agents list`` and ``agents check``: what is configured and whether it loads, without any database."""

from pathlib import Path

import pytest

from tests.cli.commands import only_line, ran

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


def test_list_names_each_agent_with_its_model_and_tools(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    done = ran(tmp_path, "agents", "list", "--agents", "mine.toml")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["NAME", "KIND", "MODEL", "TOOLS"]
    assert ["assistant", "tool", "loop", "scripted:demo", "clock,", "calculator,", "notes"] in rows
    assert ["greeter", "tool", "loop", "scripted:echo", "clock,", "./tools.py:add"] in rows


def test_check_says_ok_for_each_that_loads(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text(TOOLS)
    done = ran(tmp_path, "agents", "check")
    assert done.returncode == 0, done.stdout
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("assistant", "echo", "stream100", "greeter")
    ]


def test_check_says_what_is_wrong_with_one_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text("\nimport not_there\n")
    done = ran(tmp_path, "agents", "check")
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert "greeter" in line
    assert "not_there" in line
    assert "tools.py, line 2" in line
    assert len(done.stdout.splitlines()) == 4


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text("[agents.x]\nmodle = 'scripted:echo'\n")
    for action in ("list", "check"):
        done = ran(tmp_path, "agents", action)
        assert done.returncode == 1
        assert only_line(done) == "agents.toml, line 2: agent 'x': unknown key 'modle'; did you mean 'model'?"


@pytest.mark.parametrize("way", ["import sys\nsys.exit(3)", "raise SystemExit('enough')", "raise KeyboardInterrupt"])
def test_a_module_that_ends_the_program_is_an_agent_that_does_not_load(tmp_path: Path, way: str) -> None:
    (tmp_path / "agents.toml").write_text(GOOD)
    (tmp_path / "tools.py").write_text(f"{way}\n")
    done = ran(tmp_path, "agents", "check")
    assert done.returncode == 1
    failed = done.stdout.splitlines()[-1]
    assert failed.startswith("failed  greeter: ")
    assert "tools.py" in failed
    assert f"line {len(way.splitlines())}" in failed
