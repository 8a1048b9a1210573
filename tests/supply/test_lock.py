"""``make lock`` rewrites what has changed; what has not keeps its time, so that nothing is installed again."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

UV = """
changed=$1
for target; do :; done
touch "$target"
case ",$changed," in *",${target##*/},"*) echo "one more" >> "$target" ;; esac
"""
"""Writes the lock file in any case, as uv does; those that its first argument names change."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "uv.sh").write_text(UV)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".tools").touch()
    return tmp_path


def lock(checkout: Path, changed: str) -> set[str]:
    """Lock; return the names of the files with another time than before."""
    files = list((checkout / "requirements").glob("*.txt"))
    before = {file: file.stat().st_mtime_ns for file in files}
    command = ["make", "lock", f"UV=sh uv.sh {changed or '-'}"]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    return {file.name for file in files if file.stat().st_mtime_ns != before[file]}


def tools_are_current(checkout: Path) -> bool:
    return subprocess.run(["make", "-q", ".venv/.tools"], cwd=checkout, check=False).returncode == 0


def test_a_lock_without_changes_leaves_the_environment_as_it_is(checkout: Path) -> None:
    assert lock(checkout, "") == set()
    assert tools_are_current(checkout)


def test_a_changed_lock_file_is_installed(checkout: Path) -> None:
    assert lock(checkout, "build.txt,dev.txt") == {"build.txt", "dev.txt"}
    assert not tools_are_current(checkout)


def test_a_missing_lock_file_is_made(checkout: Path) -> None:
    (checkout / "requirements" / "docs.txt").unlink()
    assert lock(checkout, "") == set()
    assert (checkout / "requirements" / "docs.txt").exists()
