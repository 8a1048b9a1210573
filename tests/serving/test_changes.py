"""Which files count as changed sources."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli import dev
from app.cli.dev import SourceWatcher


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(dev, "MAX_LOAD", 0)


def touched(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("name", ["agents.toml", "tools.py", "deep/er/tools.py", ".env"])
def test_a_source_that_is_written_or_removed_has_changed_once(tmp_path: Path, name: str) -> None:
    watched = SourceWatcher([tmp_path], [tmp_path / "agents.toml", tmp_path / ".env"])
    assert not watched.found()
    ways: list[Callable[[Path], None]] = [touched, Path.unlink]
    for way in ways:
        way(tmp_path / name)
        assert watched.found() == str(tmp_path / name)
        assert not watched.found()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt", "pyproject.toml", "other/agents.toml", "other/.env", ".data/x.py", ".git/x.py", "__pycache__/x.py",
        "v/site-packages/x.py",
    ],
)  # fmt: skip
def test_other_files_are_ignored(tmp_path: Path, name: str) -> None:
    watched = SourceWatcher([tmp_path], [tmp_path / "agents.toml", tmp_path / ".env"])
    touched(tmp_path / name)
    assert not watched.found()


def test_a_large_folder_is_scanned_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "MAX_LOAD", 1e9)
    watched = SourceWatcher([tmp_path])
    touched(tmp_path / "tools.py")
    assert not watched.found()
